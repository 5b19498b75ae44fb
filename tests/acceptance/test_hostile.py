"""The corpus of hostile files through the real service: nothing happens, and the answer says why not."""

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.contract.problem import Problem
from tests.acceptance.conftest import Service, serving
from tests.acceptance.hostile import CORPUS
from tests.acceptance.hostile.trap import Trap, laid_out
from tests.acceptance.hostile.vector import Vector
from tests.processes import tree, wait_until
from workers.engine.errors import EngineError
from workers.sandbox.kernel import examine
from workers.stages import inspect

ROOT = Path(__file__).parents[2]
FAST = {
    *("name: traversal", "pt2: poison_expressions", "pt2: pickled_weight", "pt2: power_of_a_power"),
    *("onnx: data_outside_of_the_folder", "folder: code_by_auto_map", "npz: array_of_objects"),
    *("images: picture_of_billions_of_pixels", "parquet: page_that_unpacks_to_more_than_it_says"),
}
INSPECTION_SECONDS = 60  # a file that takes so long is refused for it
_TELLTALE = re.compile(r"Traceback|File \"|site-packages|\bline \d+, in\b|0x[0-9a-f]{8,}")
Answer = Mapping[str, Any]


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    with tempfile.TemporaryDirectory() as folder, laid_out(Path(folder)) as trap:
        yield trap


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "sandbox": "auto" if examine().missing else "require",
        "inspection_seconds": str(INSPECTION_SECONDS),
        "job_memory_bytes": str(8 << 30),
        "threads": "1",
    }
    with serving(tmp_path_factory.mktemp("service"), **settings) as service:
        yield service


@contextmanager
def _client(service: Service) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=120.0) as client:
        yield client


def _post(client: httpx.Client, vector: Vector, trap: Trap) -> httpx.Response:
    parameters = {"filename": vector.filename}
    return client.post(f"/v1/{vector.noun}", params=parameters, content=vector.build(trap))


def _inspected(client: httpx.Client, response: httpx.Response) -> Answer:
    """What became of an upload, once that is known; that of a refused one is its problem."""
    if response.is_error:
        assert response.headers["content-type"] == "application/problem+json"
        return {"status": "rejected", "problem": response.json()}
    deadline = time.monotonic() + 600.0
    while True:
        answer: Answer = client.get(response.headers["location"]).raise_for_status().json()
        if answer["status"] != "inspecting":
            return answer
        assert time.monotonic() < deadline, "the inspection does not end"
        time.sleep(0.2)


def _complaint(vector: Vector, answer: Answer, service: Service) -> str | None:
    """What is wrong with the answer to a vector."""
    if answer["status"] == "ready" and not vector.codes:
        return None
    if answer["status"] == "ready" or not vector.codes:
        return f"{answer['status']}: {answer.get('problem')}"
    text = json.dumps(answer["problem"])
    problem = Problem.model_validate(answer["problem"])
    if problem.code not in vector.codes or not 400 <= problem.status < 500 or not problem.detail:
        return f"refused otherwise: {text}"
    places = {str(service.folder), str(ROOT), sys.prefix, sys.base_prefix, "rankfold-scratch"}
    if _TELLTALE.search(text) or any(place in text for place in places):
        return f"tells of the server: {text}"
    return None


def _demand_harmless(service: Service, trap: Trap, vectors: Sequence[Vector], good: Path) -> None:
    """Post them all and then an ordinary model; the worker is the same as before, and alone."""
    with _client(service) as client:
        worker = service.pid("worker")
        responses = [_post(client, vector, trap) for vector in vectors]
        answers = [_inspected(client, response) for response in responses]
        found = {
            vector.name: complaint
            for vector, answer in zip(vectors, answers, strict=True)
            if (complaint := _complaint(vector, answer, service))
        }
        assert found == {}
        response = client.post("/v1/models", params={"filename": "good.pt2"}, content=good.read_bytes())
        assert _inspected(client, response)["status"] == "ready"
        assert trap.sprung() == set()
        wait_until(lambda: not _strangers(worker), what="the end of everything that jobs started")
        assert (service.pid("worker"), psutil.pid_exists(worker)) == (worker, True)


def _strangers(worker: int) -> list[str]:
    """What runs below the worker and is none of its own processes."""
    return [line for each in tree(worker) if "celery" not in (line := _command(each))]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or "celery, about to end"
    except psutil.NoSuchProcess:
        return "celery, ended"


def test_some_of_every_kind_do_nothing_and_are_refused_with_the_reason(
    service: Service, trap: Trap, small: Path
) -> None:
    chosen = [vector for vectors in CORPUS.values() for vector in vectors if vector.name in FAST]
    assert len(chosen) == len(FAST)
    _demand_harmless(service, trap, chosen, small / "model.pt2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", CORPUS)
def test_the_whole_corpus_does_nothing_and_is_refused_with_the_reason(
    kind: str, service: Service, trap: Trap, small: Path
) -> None:
    _demand_harmless(service, trap, CORPUS[kind], small / "model.pt2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [kind for kind in CORPUS if kind != "names"])
def test_nothing_runs_outside_of_the_sandbox_either(kind: str, trap: Trap, tmp_path: Path) -> None:
    for vector in CORPUS[kind]:
        if vector.codes & {"time_limit", "unsupported_format"}:
            continue
        path = tmp_path / "upload"
        path.write_bytes(vector.build(trap))
        look: Any = inspect.model if vector.noun == "models" else inspect.dataset
        try:
            look(path, vector.filename.rpartition(".")[2])
            code = "ready"
        except EngineError as error:
            code = error.code
        assert code in (vector.codes or {"ready"}), vector.name
        assert trap.sprung() == set(), vector.name
