# One file, two images: `api` (no torch) and `worker`.
#
#   docker build --target api    --tag rankfold-api .
#   docker build --target worker --tag rankfold-worker .
#
# The worker gets PyTorch from the default package index, which serves a build with CUDA. For the smaller
# build without, pass the address of PyTorch's own index for CPUs as the build argument EXTRA_INDEX_URL.

FROM python:3.11.13-slim-bookworm AS wheel
WORKDIR /build
COPY pyproject.toml README.md ./
COPY app app
COPY workers workers
COPY migrations migrations
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11.13-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RANKFOLD_DATA_DIR=/data \
    RANKFOLD_HOST=0.0.0.0
RUN useradd --uid 10001 --create-home rankfold && install --directory --owner=rankfold --mode=700 /data
WORKDIR /home/rankfold
VOLUME /data

FROM base AS api
# Without this, each of the threads that stream files keeps freed memory for itself.
ENV MALLOC_ARENA_MAX=2
COPY requirements/api.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --requirement /tmp/requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER rankfold
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["rankfold"]
CMD ["api"]

FROM base AS worker
ARG EXTRA_INDEX_URL=""
COPY requirements/worker.txt /tmp/requirements.txt
RUN PIP_EXTRA_INDEX_URL="$EXTRA_INDEX_URL" pip install --no-cache-dir --requirement /tmp/requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER rankfold
# A worker whose pool is gone has no children.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "test -n \"$(cat /proc/1/task/1/children)\""]
ENTRYPOINT ["rankfold"]
CMD ["worker"]
