"""Admission of pictures in class folders (`.zip`): what is in the archive, and how large each says it is."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engine.admit.archive import Archive, Rules, open_archive, show
from workers.engine.admit.document import expect, load, malformed
from workers.engine.errors import Rejected

RULES = Rules(
    deflate=True, max_bytes=64 << 30, max_ratio=200, free_bytes=256 << 20, max_entries=100_000, folders=True
)
PREPROCESSING = "preprocessing.json"
MAX_PIXELS = 40_000_000
MAX_FILE_BYTES = 64 << 20
MAX_SIZE = 4_096
MAX_CLASSES = 10_000

_MAX_JSON_BYTES = 1 << 16
_MAX_MARKERS = 10_000
_MAX_CLASS_NAME = 200
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# Where a frame begins, whatever its coding: all of C0 … CF but tables and arithmetic conditioning.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture: its size, then each value v becomes (v · scale − mean) / std.

    `size` None leaves pictures as they are, all of one size. `resize`, where the middle is cut out (`crop`),
    is what the shorter side becomes before. `mean` and `std` have a number for each channel.
    """

    size: Size | None = None
    resize: int | None = None
    crop: bool = False
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255
    channels: int = 3
    channels_last: bool = False


@dataclass(frozen=True)
class Pictures:
    """The pictures by name, in the order of their names, each with its label, and what to do to them.

    `classes` are the folders' names where labels number them; empty where the names are the numbers.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    preprocessing: Preprocessing


@contextmanager
def admit(path: Path) -> Iterator[tuple[Archive, Pictures]]:
    """A zip of pictures in class folders; no picture is looked at. Raises `Rejected`, naming the entry."""
    with open_archive(path, RULES) as archive:
        names = sorted(name for name in archive.names if not _is_clutter(name) and name != PREPROCESSING)
        for name in names:
            _check_name(name)
        if not names:
            raise Rejected("no_pictures", "The archive holds no pictures.", hint=_LAYOUT)
        labels, classes = _labels([name.partition("/")[0] for name in names])
        yield archive, Pictures(tuple(names), labels, classes, _preprocessing(archive))


def size(head: bytes, name: str) -> Size:
    """The height and width that a picture's header tells, whatever its ending.

    Raises `Rejected`: `unknown_picture`, `corrupt_picture`, `too_many_pixels`, naming the entry.
    """
    read = next((reader for begins, reader in _READERS if begins(head)), None)
    if read is None:
        raise Rejected(
            "unknown_picture",
            f"The entry {show(name)} is no picture of a format that is accepted.",
            hint="Use PNG, JPEG, BMP or WebP.",
        )
    found = read(head)
    if found is None or min(found) < 1:
        raise corrupt(name)
    if math.prod(found) > MAX_PIXELS:
        raise Rejected(
            "too_many_pixels",
            f"The picture {show(name)} has {found[0]} × {found[1]} pixels; {MAX_PIXELS} are the most.",
            hint="Make it smaller before uploading: networks take far smaller ones.",
        )
    return found


def corrupt(name: str) -> Rejected:
    """The rejection of a picture that cannot be decoded."""
    return Rejected(
        "corrupt_picture",
        f"The picture {show(name)} is damaged or cut short.",
        hint="Replace it or leave it out.",
    )


_LAYOUT = "Put pictures into a folder for each class: cat/1.png, dog/2.png; no folder around these."


def _is_clutter(name: str) -> bool:
    """What desktops add to archives unasked."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1] in ("Thumbs.db", "desktop.ini")


def _check_name(name: str) -> None:
    if not name.lower().endswith(_ENDINGS):
        raise Rejected(
            "unknown_entry",
            f"The archive has an entry that is no picture: {show(name)}.",
            hint=f"Use the endings {', '.join(_ENDINGS)}, and {PREPROCESSING} at the top.",
        )
    label, folder, _ = name.partition("/")
    if not folder:
        raise Rejected("no_class", f"The picture {show(name)} is in no folder.", hint=_LAYOUT)
    if len(label) > _MAX_CLASS_NAME:
        raise Rejected("hostile_name", f"{show(label)} is too long for the name of a class.")


def _labels(folders: list[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """A label for each, and the names that labels stand for; numbers as names are their own labels."""
    classes = sorted(set(folders))
    if len(classes) > MAX_CLASSES:
        raise Rejected("too_many_entries", f"The archive has more than {MAX_CLASSES} class folders.")
    if all(name.isascii() and name.isdecimal() and len(name) < 10 for name in classes):
        return tuple(map(int, folders)), ()
    places = {name: place for place, name in enumerate(classes)}
    return tuple(places[folder] for folder in folders), tuple(classes)


def _preprocessing(archive: Archive) -> Preprocessing:
    if PREPROCESSING not in archive.names:
        return Preprocessing()
    table = load(archive.read(PREPROCESSING, _MAX_JSON_BYTES), PREPROCESSING)
    known = {"size", "resize", "crop", "mean", "std", "scale", "layout", "channels"}
    if unknown := sorted(table.keys() - known):
        raise _wrong(unknown[0], f"known are {', '.join(sorted(known))}")
    size = None if table.get("size") is None else _size(table["size"])
    channels = _one_of(table, "channels", {1: 1, 3: 3}, 3)
    crop = _one_of(table, "crop", {"center": True, None: False}, None)
    return Preprocessing(
        size=size,
        resize=_resize(table, size if crop else None),
        crop=crop,
        mean=_numbers(table, "mean", channels, 0.0),
        std=_numbers(table, "std", channels, 1.0, least=1e-12),
        scale=_number(table.get("scale", 1 / 255), "scale"),
        channels=channels,
        channels_last=_one_of(table, "layout", {"NCHW": False, "NHWC": True}, "NCHW"),
    )


def _size(value: Any) -> Size:
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong("size", "it is [height, width]")
    height, width = (_side(side, "size") for side in value)
    return height, width


def _resize(table: dict[str, Any], cut: Size | None) -> int | None:
    """What the shorter side becomes before `cut` is cut out of the middle."""
    wanted = table.get("resize")
    if cut is None:
        if wanted is not None or table.get("crop") is not None:
            field = "resize" if table.get("crop") is None else "crop"
            raise _wrong(field, "it takes `size` and `crop: center`")
        return None
    resize = max(cut) if wanted is None else _side(wanted, "resize")
    if resize < max(cut):
        raise _wrong("resize", "the shorter side must be at least as long as what is cut out")
    return resize


def _side(value: Any, field: str) -> int:
    side = expect(value, int, f"{PREPROCESSING}: {field}")
    if not 1 <= side <= MAX_SIZE:
        raise _wrong(field, f"sides are of 1 to {MAX_SIZE} pixels")
    return side


def _numbers(
    table: dict[str, Any], field: str, count: int, default: float, least: float = -math.inf
) -> tuple[float, ...]:
    values = expect(table.get(field, [default] * count), list, f"{PREPROCESSING}: {field}")
    found = tuple(_number(value, field) for value in values)
    if len(found) != count or min(found) < least:
        raise _wrong(field, f"it has a number for each of {count} channels, and no `std` is 0")
    return found


def _number(value: Any, field: str) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e30:  # NaN is not smaller either
        raise _wrong(field, "it has to be a number")
    return float(value)


def _one_of(table: dict[str, Any], field: str, known: dict[Any, Any], default: Any) -> Any:
    value = table.get(field, default)
    if type(value) not in {type(each) for each in known} or value not in known:
        names = ("null" if each is None else str(each) for each in known)
        raise _wrong(field, f"it is one of {', '.join(names)}")
    return known[value]


def _wrong(field: str, problem: str) -> Rejected:
    return malformed(f"{show(field)} in {PREPROCESSING} is not understood: {problem}")


def _png(head: bytes) -> Size | None:
    return None if head[12:16] != b"IHDR" else _big(head, 20, 16, 4)


def _jpeg(head: bytes) -> Size | None:
    """That of the first frame: markers before it are skipped."""
    place = 2
    for _ in range(_MAX_MARKERS):
        if head[place : place + 1] != b"\xff" or place + 9 > len(head):
            return None
        marker = head[place + 1]
        if marker in _JPEG_FRAMES:
            return _big(head, place + 5, place + 7, 2)
        if marker == 0xFF:
            place += 1
        else:
            place += 2 if marker in _JPEG_BARE else 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None


def _bmp(head: bytes) -> Size | None:
    header = int.from_bytes(head[14:18], "little")
    if header == 12:
        return int.from_bytes(head[20:22], "little"), int.from_bytes(head[18:20], "little")
    height = abs(int.from_bytes(head[22:26], "little", signed=True))  # negative: from the top down
    return height, abs(int.from_bytes(head[18:22], "little", signed=True))


def _webp(head: bytes) -> Size | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(head[28:30], "little") & 0x3FFF, int.from_bytes(head[26:28], "little") & 0x3FFF
    return None


def _big(head: bytes, height: int, width: int, count: int) -> Size:
    return int.from_bytes(head[height : height + count], "big"), int.from_bytes(
        head[width : width + count], "big"
    )


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Size | None]], ...] = (
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda head: head.startswith(b"BM") and len(head) >= 26, _bmp),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP" and len(head) > 30, _webp),
)
