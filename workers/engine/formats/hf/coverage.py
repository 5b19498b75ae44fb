"""The model types that are read, as the table in docs/huggingface.md."""

from workers.engine.admit.hf_config import ARCHITECTURES
from workers.engine.formats import pages
from workers.engine.formats.hf.signatures import SIGNATURES, outputs_of

PAGE = pages.DOCS / "huggingface.md"


def table() -> str:
    """A row for every model type: its classes, inputs and outputs."""
    rows = []
    for model_type, architectures in ARCHITECTURES.items():
        outputs = dict.fromkeys(name for known in architectures for name in outputs_of(known))
        signature = SIGNATURES[model_type]
        cells = [model_type, *map(", ".join, (architectures, signature.inputs, outputs)), signature.note]
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(["| type | classes | inputs | outputs | notes |", "|" + " --- |" * 5, *rows]) + "\n"


def renewed(page: str) -> str:
    """The page with the table that the code makes."""
    return pages.renewed(page, "models", table())
