"""The real pipeline in the real process, under the limits that users get."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from app.db.session import reading
from app.db.tables import Artifact
from app.queue.lifecycle import claim
from app.settings import Settings
from tests.app.queue.jobs import add_job, add_upload, row_of, upload_of
from tests.workers.engine import texts
from tests.workers.engine.networks import write_example
from tests.workers.engine.parquets import table
from tests.workers.engine.pictures import picture, zipped
from workers.attempt import CHILD, Attempt, Bench
from workers.engine.formats import onnx, pt2

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion"


@pytest.fixture
def real_bench(bench: Bench) -> Bench:
    return replace(bench, settings=Settings(threads=1, max_attempts=1), child=CHILD)


def put_example(bench: Bench, kind: str, name: str) -> str:
    upload_id = add_upload(bench.engine, kind, format=name.rpartition(".")[2])
    bench.store.put_file(f"uploads/{upload_id}", EXAMPLE / name)
    return upload_id


def put_files(bench: Bench, files: Mapping[str, Path]) -> dict[str, str]:
    """Uploads by their kind."""
    ids = {}
    for kind, file in files.items():
        ids[kind] = add_upload(bench.engine, kind, format=file.suffix[1:])
        bench.store.put_file(f"uploads/{ids[kind]}", file)
    return ids


def attempt(bench: Bench, job_id: str) -> Any:
    job = claim(bench.engine, job_id, "a worker", 30.0)
    assert job is not None
    Attempt(bench, job).run()
    return row_of(bench.engine, job_id)


def test_a_real_model_is_inspected(real_bench: Bench) -> None:
    upload_id = put_example(real_bench, "model", "model.pt2")
    attempt(real_bench, add_job(real_bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(real_bench.engine, upload_id)
    assert (upload.status, upload.problem) == ("ready", None)
    assert upload.summary["parameters"] == 584_938


def test_a_real_onnx_file_is_inspected_and_compared_within_the_limits(
    real_bench: Bench, tmp_path: Path
) -> None:
    onnx.write(pt2.read(EXAMPLE / "model.pt2"), tmp_path / "model.onnx")
    upload_id = add_upload(real_bench.engine, "model", format="onnx")
    real_bench.store.put_file(f"uploads/{upload_id}", tmp_path / "model.onnx")
    attempt(real_bench, add_job(real_bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(real_bench.engine, upload_id)
    assert (upload.status, upload.problem) == ("ready", None)
    # BatchNorm is part of the convolutions in what an exporter writes
    assert 570_000 < upload.summary["parameters"] <= 584_938


def test_a_real_folder_is_inspected_within_the_limits(real_bench: Bench, tmp_path: Path) -> None:
    path = texts.folder_of("GPT2LMHeadModel", "gpt2", tmp_path, texts.byte_pairs())
    upload_id = add_upload(real_bench.engine, "model", format="zip")
    real_bench.store.put_file(f"uploads/{upload_id}", path)
    attempt(real_bench, add_job(real_bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(real_bench.engine, upload_id)
    assert (upload.status, upload.problem) == ("ready", None)
    assert [array["name"] for array in upload.summary["inputs"]] == ["input_ids", "attention_mask"]
    assert upload.summary["folder"]["tokenizer"]["ids"] == 40


def test_a_real_data_set_is_inspected(real_bench: Bench) -> None:
    upload_id = put_example(real_bench, "dataset", "test.npz")
    attempt(real_bench, add_job(real_bench.engine, "inspect_dataset", upload_id=upload_id))
    upload = upload_of(real_bench.engine, upload_id)
    assert (upload.status, upload.summary["rows"]) == ("ready", 2000)


def data_sets(folder: Path) -> list[Path]:
    """Pictures as a zip, and the same as Parquet."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)
    entries = {f"{n % 4}/{n:02}.png": picture(each.transpose(1, 2, 0)) for n, each in enumerate(pixels)}
    lists = pa.array(pixels.astype(np.float32).tolist(), pa.list_(pa.list_(pa.list_(pa.float32()))))
    columns = {"image": lists, "target": pa.array(np.arange(40) % 4)}
    return [zipped(folder / "d.zip", entries, scale=1), table(folder / "d.parquet", columns)]


@pytest.mark.parametrize("place", [0, 1])
def test_libraries_that_read_data_get_along_with_the_sandbox(
    place: int, real_bench: Bench, tmp_path: Path
) -> None:
    file = data_sets(tmp_path)[place]
    bench = replace(real_bench, settings=Settings(threads=1, max_attempts=1, job_memory_bytes=2 << 30))
    upload_id = add_upload(bench.engine, "dataset", format=file.suffix[1:])
    bench.store.put_file(f"uploads/{upload_id}", file)
    attempt(bench, add_job(bench.engine, "inspect_dataset", upload_id=upload_id))
    upload = upload_of(bench.engine, upload_id)
    assert (upload.status, upload.problem) == ("ready", None)
    assert {array["name"]: array["shape"] for array in upload.summary["arrays"]} == {
        "image": [40, 3, 8, 8],
        "target": [40],
    }


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_jobs_in_the_sandbox_unpack_and_decode(place: int, real_bench: Bench, tmp_path: Path) -> None:
    write_example(tmp_path, {})
    files = {"model": tmp_path / "model.pt2", "dataset": data_sets(tmp_path)[place]}
    ids = put_files(real_bench, files)
    job_id = add_job(
        real_bench.engine,
        model=ids["model"],
        data={"train": ids["dataset"]},
        task="classification",
        finetune={"epochs": 1, "batch_size": 8},
        outputs=["pt2"],
    )
    row = attempt(real_bench, job_id)
    assert (row.status, row.problem) == ("succeeded", None)
    assert row.report["splits"] == {"fit": 25, "calibration": 3, "selection": 4, "test": 8}


@pytest.mark.slow
def test_a_job_in_the_sandbox_tokenises_and_writes_a_folder(real_bench: Bench, tmp_path: Path) -> None:
    files = {
        "model": texts.folder_of("GPT2LMHeadModel", "gpt2", tmp_path, texts.byte_pairs()),
        "dataset": texts.written(tmp_path / "text.txt", 60),
    }
    ids = put_files(real_bench, files)
    job_id = add_job(
        real_bench.engine,
        model=ids["model"],
        data={"test": ids["dataset"], "length": 16},
        task="language-modeling",
        target={"of": "parameters", "keep": 0.6},
        outputs=["huggingface"],
    )
    row = attempt(real_bench, job_id)
    assert (row.status, row.problem) == ("succeeded", None)
    [candidate] = row.report["candidates"]
    assert (candidate["metric"]["name"], candidate["huggingface"]) == ("perplexity", "load.py")
    with reading(real_bench.engine) as connection:
        artifacts = connection.execute(sa.select(Artifact.name, Artifact.format, Artifact.candidate)).all()
    assert ("candidate-0-factors.zip", "zip", 0) in artifacts


def test_what_is_no_model_is_rejected_with_the_reason(real_bench: Bench, tmp_path: Path) -> None:
    upload_id = add_upload(real_bench.engine)
    file = tmp_path / "nonsense"
    file.write_bytes(b"nonsense")
    real_bench.store.put_file(f"uploads/{upload_id}", file)
    attempt(real_bench, add_job(real_bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(real_bench.engine, upload_id)
    assert upload.status == "rejected"
    assert upload.problem["code"] not in ("inspection_failed", "internal_error")


@pytest.mark.slow
def test_a_real_model_is_compressed(real_bench: Bench) -> None:
    job_id = add_job(
        real_bench.engine,
        model=put_example(real_bench, "model", "model.pt2"),
        data={"test": put_example(real_bench, "dataset", "test.npz")},
        task="classification",
        finetune={"epochs": 0},
        quantize="dynamic-int8",
    )
    row = attempt(real_bench, job_id)
    assert (row.status, row.problem) == ("succeeded", None)
    assert row.report["candidates"][0]["macs"] < row.report["original"]["macs"]
    with reading(real_bench.engine) as connection:
        made = {tuple(row) for row in connection.execute(sa.select(Artifact.name, Artifact.candidate))}
    assert made == {
        ("candidate-0.pt2", 0),
        ("candidate-0.onnx", 0),
        ("candidate-0-int8.onnx", 0),
        ("report.json", None),
    }
