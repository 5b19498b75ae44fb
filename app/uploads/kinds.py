"""The kinds of upload and the formats each accepts, recognised by name and first bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from app.errors import UnsupportedMedia

HEAD_BYTES = 9  # enough to recognise every format
_ZIP = b"PK\x03\x04"
# The keys of a ModelProto's fields: a protocol buffer has no other mark, and may begin with any of them.
_ONNX_FIELDS = [bytes([field << 3 | wire]) for field, wire in enumerate((0, 2, 2, 2, 0, 2, 2, 2), 1)]
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format


@dataclass(frozen=True)
class Format:
    """A file format: its suffix, and whether a file begins like one."""

    name: str
    begins: Callable[[bytes], bool]

    @property
    def suffix(self) -> str:
        """The ending of such a file's name."""
        return f".{self.name}"


@dataclass(frozen=True)
class Kind:
    """Models or data sets. `name` is stored with the rows, `noun` is for people."""

    name: str
    noun: str
    prefix: str
    formats: tuple[Format, ...]

    @property
    def inspection(self) -> str:
        """The kind of job that looks into such an upload."""
        return f"inspect_{self.name}"

    @property
    def accepted(self) -> str:
        """The accepted endings, in words."""
        *others, last = (accepted.suffix for accepted in self.formats)
        return f"{', '.join(others)} or {last}"

    def recognise(self, filename: str, head: bytes) -> str:
        """The format's name; raises `UnsupportedMedia`, which says what is accepted.

        `head` is the file's first `HEAD_BYTES` bytes, or all of them if there are fewer.
        """
        suffix = PurePosixPath(filename).suffix.lower()
        found = next((accepted for accepted in self.formats if accepted.suffix == suffix), None)
        if found is not None and found.begins(head):
            return found.name
        detail = (
            f"The file's name ends in {suffix or 'nothing'}, which is no format of a {self.noun} here."
            if found is None
            else f"The file is named {suffix} but does not begin like one."
        )
        hint = f"A {self.noun} is accepted as {self.accepted}."
        raise UnsupportedMedia("unsupported_format", detail, hint=hint, field="file")


def _is_zip(head: bytes) -> bool:
    return head.startswith(_ZIP)


def _is_safetensors(head: bytes) -> bool:
    return int.from_bytes(head[:8], "little") <= _LARGEST_HEADER and head[8:9] == b"{"


def _is_parquet(head: bytes) -> bool:
    return head.startswith(b"PAR1")


def _is_onnx(head: bytes) -> bool:
    return head[:1] in _ONNX_FIELDS


def _is_text(head: bytes) -> bool:
    return b"\0" not in head


MODEL = Kind(
    "model", "model", "mdl", (Format("pt2", _is_zip), Format("onnx", _is_onnx), Format("zip", _is_zip))
)
DATASET = Kind(
    "dataset",
    "data set",
    "dst",
    (
        Format("npz", _is_zip),
        Format("safetensors", _is_safetensors),
        Format("parquet", _is_parquet),
        Format("zip", _is_zip),
        Format("txt", _is_text),
    ),
)
