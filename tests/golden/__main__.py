"""Write the golden files anew: `python -m tests.golden`."""

from tests.golden import FOLDER, GOLDEN, text

for name in GOLDEN:
    (FOLDER / name).write_text(text(name))
