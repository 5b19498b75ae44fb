"""Write the golden files anew: `python -m tests.golden`."""

from tests.golden import FOLDER, GOLDEN, text
from workers.engine.formats.hf import coverage as hf
from workers.engine.formats.onnx_in import coverage as onnx

for name in GOLDEN:
    (FOLDER / name).write_text(text(name))
for page in (hf, onnx):
    page.PAGE.write_text(page.renewed(page.PAGE.read_text()))
