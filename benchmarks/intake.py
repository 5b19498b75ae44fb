"""What it takes to look at an upload: of 500 MB, beside reading and hashing it; and what others notice.

    python -m benchmarks.intake [--megabytes 500] [--rounds 3] [--seconds 60] [--only files|latency]

Files are made on the spot. Every step is a process of its own, on one thread, and runs in turns with the
others; its time is that of the processor, which neighbours on the machine disturb least. Latencies are those
of another user's GETs while the hostile files of the tests are posted, in turns with idle minutes.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from benchmarks.intake_steps import STEPS
from benchmarks.tables import markdown, publish
from tests.acceptance.conftest import Service, serving
from tests.acceptance.hostile import CORPUS
from tests.acceptance.hostile.trap import Trap, laid_out
from tests.acceptance.hostile.vector import Vector
from tests.processes import tree

_WIDTH = 2048  # of the layers that a file is made of
_LOOK_SECONDS = 0.02  # between two looks at the memory of a step
_ASK_SECONDS = 0.02  # between two requests of the other user
_POSTERS = 4
_EXCLUDED = {"time_limit"}  # files that keep a worker busy for as long as it is let


def main() -> None:
    """Measure what was asked for, and write its table."""
    asked = _options()
    if asked.only != "latency":
        rows: list[list[str]] = []
        for row in _files(asked.megabytes, asked.rounds):
            rows.append(row)
            _write("intake", _HEADER, rows)
    if asked.only != "files":
        header = ["", "requests", "median", "p99", "p99 over idle"]
        _write("intake-latency", header, _latencies(asked.seconds, asked.rounds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of all steps, in turns")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each turn: two a round")
    parser.add_argument("--only", choices=("files", "latency"))
    return parser.parse_args()


def _write(name: str, header: list[str], rows: list[list[str]]) -> None:
    table = markdown(header, rows)
    publish(name, table)
    print(table, file=sys.stderr, flush=True)


_HEADER = [
    *("file", "MB", "reading and hashing", "admission", "reading it in", "ready", "inspection"),
    *("peak memory", "a small one ready"),
]


def _files(megabytes: int, rounds: int) -> Iterator[list[str]]:
    """A row for each kind of file: processor time over that of reading and hashing, memory over size."""
    with tempfile.TemporaryDirectory() as folder:
        for name, make in _KINDS.items():
            path, small = Path(folder) / name, Path(folder) / f"small-{name}"
            _apart(make, path, megabytes << 20)
            _apart(make, small, 1 << 20)
            found: dict[str, list[dict[str, float]]] = {step: [] for step in STEPS}
            alone: list[float] = []
            for _ in range(rounds):
                for step, seen in found.items():
                    seen.append(_step(step, path, small))
                alone.append(_step("ready", path)["peak"])
            seconds = {step: median(each["seconds"] for each in seen) for step, seen in found.items()}
            size = path.stat().st_size
            ratios = [f"{seconds[step] / seconds['hash']:.2f} ×" for step in STEPS[1:]]
            start = median(each["start"] for each in found["ready"])
            told = [*ratios, f"{max(alone) / size:.2f} ×", f"{start:.1f} s"]
            yield [name, f"{size / 1e6:.0f}", f"{seconds['hash']:.2f} s", *told]
            path.unlink()


def _apart(make: Callable[[Path, int], None], path: Path, size: int) -> None:
    """Make a file in a process of its own: what it holds of memory ends with it."""
    call = f"intake.{make.__name__}(Path({str(path)!r}), {size})"
    code = f"from pathlib import Path; from benchmarks import intake; {call}"
    subprocess.run([sys.executable, "-c", code], check=True)


def _step(step: str, path: Path, *small: Path) -> dict[str, float]:
    """A step's processor seconds, those of what comes before it, and the most bytes that were resident in its
    processes at once."""
    command = [sys.executable, "-m", "benchmarks.intake_steps", step, *map(str, (path, *small))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(_resident, tree(process.pid))))
            time.sleep(_LOOK_SECONDS)
        assert process.stdout is not None
        return {**json.loads(process.stdout.read()), "peak": float(peak)}


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def make_pt2(path: Path, size: int) -> None:
    """Square linear layers in a row, exported."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    from workers.engine.formats import pt2  # noqa: PLC0415
    from workers.engine.graph.network import Dimension, Input, trace  # noqa: PLC0415

    layers = [nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(_count(size))]
    inputs = [Input("x", torch.float32, (Dimension("batch", example=2), _WIDTH))]
    pt2.write(trace(nn.Sequential(*layers).eval(), inputs), path)


def make_onnx(path: Path, size: int) -> None:
    """The same as products of matrices."""
    from onnx import TensorProto, helper, numpy_helper, save  # noqa: PLC0415

    count = _count(size)
    nodes = [
        helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"], name=f"n{n}") for n in range(count)
    ]
    shape = ["batch", _WIDTH]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{count}", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(_noise(_WIDTH, n) / _WIDTH**0.5, f"w{n}") for n in range(count)],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def make_folder(path: Path, size: int) -> None:
    """A BERT of such a size, as transformers saves it."""
    from tests.workers.engine.hf_folders import entries_of, model_of  # noqa: PLC0415
    from tests.workers.engine.hostile import pack  # noqa: PLC0415

    layer = 4 * 12 * 768**2
    fields = {"num_hidden_layers": max(1, size // layer), "vocab_size": 1000}
    pack(path, entries_of(model_of("BertModel", fields), path.with_suffix("")))


def make_safetensors(path: Path, size: int) -> None:
    """Rows of noise."""
    from safetensors.numpy import save_file  # noqa: PLC0415

    save_file({"x": _noise(size // (4 * _WIDTH))}, path)


def _noise(rows: int, seed: int = 0) -> Any:
    import numpy as np  # noqa: PLC0415

    return np.random.default_rng(seed).standard_normal((rows, _WIDTH), np.float32)


def _count(size: int) -> int:
    return max(1, size // (4 * _WIDTH**2))


_KINDS = {
    "data.safetensors": make_safetensors,
    "model.pt2": make_pt2,
    "folder.zip": make_folder,
    "model.onnx": make_onnx,
}


def _latencies(seconds: float, rounds: int) -> list[list[str]]:
    """How long another user's GETs take, idle and while hostile files are posted, in turns."""
    found: dict[str, list[float]] = {"idle": [], "corpus": []}
    with tempfile.TemporaryDirectory() as folder, laid_out(Path(folder)) as trap:
        files = _hostile(trap)
        with serving(Path(folder), threads="1") as service:
            secret = _other_key(service)
            _asked(service, secret, min(5.0, seconds))  # what is warm afterwards was not before
            for _ in range(rounds):
                found["idle"] += _asked(service, secret, seconds)
                with _posting(service, files):
                    found["corpus"] += _asked(service, secret, seconds)
                _forget(service)
        assert trap.sprung() == set(), "a hostile file had an effect"
    return [_row(name, times, _p99(found["idle"])) for name, times in found.items()]


def _row(name: str, times: list[float], idle: float) -> list[str]:
    shown = [f"{1e3 * median(times):.1f} ms", f"{1e3 * _p99(times):.1f} ms", f"{_p99(times) / idle:.2f} ×"]
    return [name, str(len(times)), *shown]


def _p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))]


def _other_key(service: Service) -> str:
    environment = os.environ | {"RANKFOLD_DATA_DIR": str(service.folder / "var")}
    command = [sys.executable, "-m", "app.cli", "keys", "create", "other"]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout.split()[1]


def _client(service: Service, secret: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60.0)


def _asked(service: Service, secret: str, seconds: float) -> list[float]:
    """Seconds that each GET took; the next one does not wait for longer than it must."""
    times, end = [], time.monotonic() + seconds
    with _client(service, secret) as client:
        for place in range(1 << 30):
            if time.monotonic() > end:
                break
            began = time.perf_counter()
            client.get(("/v1/models", "/v1/jobs", "/v1/datasets")[place % 3]).raise_for_status()
            times.append(time.perf_counter() - began)
            time.sleep(_ASK_SECONDS)
    return times


def _hostile(trap: Trap) -> list[tuple[Vector, bytes]]:
    """A few files of every kind, made beforehand; none that keeps a worker for as long as it is let."""
    chosen = (each for vectors in CORPUS.values() for each in vectors[:: max(1, len(vectors) // 5)])
    return [(each, each.build(trap)) for each in chosen if not each.codes & _EXCLUDED]


@contextmanager
def _posting(service: Service, files: list[tuple[Vector, bytes]]) -> Iterator[None]:
    """While this lasts, hostile files are posted by several clients, each of which awaits its answers."""
    end = threading.Event()
    posters = [
        threading.Thread(target=_post, args=(service, files[place::_POSTERS], end))
        for place in range(_POSTERS)
    ]
    for poster in posters:
        poster.start()
    try:
        yield
    finally:
        end.set()
        for poster in posters:
            poster.join()


def _post(service: Service, files: list[tuple[Vector, bytes]], end: threading.Event) -> None:
    with _client(service, service.key) as client:
        for vector, content in itertools.cycle(files):
            parameters = {"filename": vector.filename}
            answer = client.post(f"/v1/{vector.noun}", params=parameters, content=content)
            while not end.is_set() and answer.is_success and answer.json()["status"] == "inspecting":
                time.sleep(1.0)
                answer = client.get(f"/v1/{vector.noun}/{answer.json()['id']}")
            if end.is_set():
                return


def _forget(service: Service) -> None:
    """Delete all uploads once they were looked at, so that idle is idle again."""
    with _client(service, service.key) as client:
        for noun in ("models", "datasets"):
            while client.get(f"/v1/{noun}", params={"limit": 1}).json()["items"]:
                page = client.get(f"/v1/{noun}", params={"limit": 100}).json()["items"]
                for item in page:
                    client.delete(f"/v1/{noun}/{item['id']}")
                time.sleep(0.2)


if __name__ == "__main__":
    main()
