"""The operators that are understood, as the table in docs/onnx.md."""

from workers.engine.formats import pages
from workers.engine.formats.onnx_in import operators as _operators  # noqa: F401  # registers them
from workers.engine.formats.onnx_in.folding import CONTROL
from workers.engine.formats.onnx_in.registry import OPERATORS

PAGE = pages.DOCS / "onnx.md"

_CONTROL_LIMITS = {
    "If": "a condition that is constant or follows from shapes",
    "Scan": "over first axes, forwards, not inside of another",
}


def table() -> str:
    """Every operator with what is not supported of it: those without limits in one row."""
    limits = {name: found.limits for name, found in OPERATORS.items() if not name.islower()}
    limits |= {name: _CONTROL_LIMITS[name] for name in CONTROL}
    rows = [f"| {', '.join(sorted(name for name in limits if not limits[name]))} | |"]
    rows += [f"| {name} | {limits[name]} |" for name in sorted(limits) if limits[name]]
    return "\n".join(["| operators | only |", "| --- | --- |", *rows]) + "\n"


def renewed(page: str) -> str:
    """The page with the table that the code makes."""
    return pages.renewed(page, "operators", table())
