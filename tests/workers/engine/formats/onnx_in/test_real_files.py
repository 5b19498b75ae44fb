"""Files that others published: RANKFOLD_ONNX_FILES names a folder of them, such as unpacked wheels.

pip download --no-deps silero-vad magika rapidocr-onnxruntime speechmos
"""

import os
from pathlib import Path

import pytest

from workers.engine.errors import Rejected
from workers.engine.formats.onnx_in.check import answers, check
from workers.engine.formats.onnx_in.reader import read

FOLDER = os.environ.get("RANKFOLD_ONNX_FILES")
FILES = sorted(Path(FOLDER).rglob("*.onnx")) if FOLDER else []
# What may be wrong with a file; everything else, and above all another result, is wrong with the importer.
REASONS = {"unsupported_operator", "data_dependent", "axis_not_free", "cannot_trace", "custom_operator"}


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="RANKFOLD_ONNX_FILES names no folder with .onnx files")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_published_file_is_read_right_or_refused_with_the_reason(path: Path) -> None:
    try:
        network = read(path).network
    except Rejected as rejected:
        if rejected.code not in REASONS:
            raise
        pytest.skip(f"{rejected.code}: {rejected.detail}")
    check(path, answers(network))
