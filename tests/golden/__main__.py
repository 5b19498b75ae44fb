"""Write the golden files anew: `python -m tests.golden`."""

from tests.golden import FOLDER, GOLDEN, text
from workers.engine.formats.onnx_in.coverage import PAGE, renewed

for name in GOLDEN:
    (FOLDER / name).write_text(text(name))
PAGE.write_text(renewed(PAGE.read_text()))
