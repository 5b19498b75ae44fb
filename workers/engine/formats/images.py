"""Zips of pictures in class folders as arrays: decoded by Pillow whenever their rows are asked for."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The formats that are accepted, and no others: Pillow opens what has been imported.
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from workers.engine.admit import images
from workers.engine.admit.archive import show
from workers.engine.admit.images import MAX_FILE_BYTES, MAX_PIXELS, Preprocessing, Size
from workers.engine.admit.stored import StoredArray
from workers.engine.data import TARGET
from workers.engine.errors import Rejected
from workers.engine.rows import ComputedArray, parts

IMAGE = "image"
"""The name of the array that pictures become."""

_PLUGINS = (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, BmpImagePlugin.BmpImageFile)
_FORMATS = (*(plugin.format for plugin in _PLUGINS), WebPImagePlugin.WebPImageFile.format)
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
# What Pillow raises on pictures that are damaged or forged.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


@contextmanager
def stored(path: Path) -> Iterator[list[StoredArray]]:
    """`image`, float32 (rows, channels, height, width), and `target`, int64 (rows,).

    Raises `Rejected` as admission does; reading rows raises it for a picture that cannot be decoded.
    """
    pictures = PictureRows(path)
    labels = np.array(pictures.labels, np.int64)
    yield [
        ComputedArray(
            IMAGE,
            "float32",
            pictures.shape,
            position=None,
            chunks=lambda: (part.tobytes() for part in parts(pictures)),
            rows=pictures,
        ),
        ComputedArray(
            TARGET,
            "int64",
            labels.shape,
            position=None,
            chunks=lambda: iter([labels.tobytes()]),
            rows=labels,
            classes=pictures.classes,
        ),
    ]


class PictureRows:
    """The pictures of an archive, which stays open, as an array that is decoded row by row."""

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path) -> None:
        self._open_files = ExitStack()  # closed when nobody needs these rows any longer
        self._archive, found = self._open_files.enter_context(images.admit(path))
        self._names, self._preprocessing = found.names, found.preprocessing
        self.labels, self.classes = found.labels, found.classes
        self._size = found.preprocessing.size or self._open(0)[1]
        channels = found.preprocessing.channels
        last = found.preprocessing.channels_last
        self.shape = (len(self._names), *((*self._size, channels) if last else (channels, *self._size)))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            found[place] = self._row(int(row))
        return found

    def _open(self, row: int) -> tuple[bytes, Size]:
        name = self._names[row]
        data = self._archive.read(name, MAX_FILE_BYTES)
        return data, images.size(data, name)

    def _row(self, row: int) -> NDArray[np.float32]:
        data, size = self._open(row)
        name, asked = self._names[row], self._preprocessing
        pixels = _fitted(_decoded(data, size, name, asked.channels), asked, name)
        if pixels.size != self._size[::-1]:
            raise _sizes_differ(name, pixels.size[::-1], self._size)
        values = np.array(pixels, np.float32).reshape(*self._size, asked.channels)
        values *= np.float32(asked.scale)
        values -= np.array(asked.mean, np.float32)
        values /= np.array(asked.std, np.float32)
        return values if asked.channels_last else values.transpose(2, 0, 1)


def _decoded(data: bytes, size: Size, name: str, channels: int) -> Image.Image:
    """The first frame, grey or in colours; its size has to be what its header was seen to tell."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if picture.size != size[::-1]:
                raise images.corrupt(name)
            if picture.mode not in _MODES:
                raise _unsupported(name, picture.mode)
            return picture.convert("L" if channels == 1 else "RGB")
    except _DAMAGE as error:
        raise images.corrupt(name) from error


def _fitted(picture: Image.Image, asked: Preprocessing, name: str) -> Image.Image:
    """In the size that is asked for; bilinear, over all pixels that fall into one."""
    if asked.size is None:
        return picture
    height, width = asked.size
    if asked.resize is None:
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    shorter = min(picture.size)
    wide, high = (
        asked.resize if side == shorter else asked.resize * side // shorter for side in picture.size
    )
    if wide * high > MAX_PIXELS:
        raise _too_long(name)
    picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def _sizes_differ(name: str, found: Size, wanted: Size) -> Rejected:
    return Rejected(
        "sizes_differ",
        f"{show(name)} has {found[0]} × {found[1]} pixels, the first picture {wanted[0]} × {wanted[1]}.",
        hint=f"Say in {images.PREPROCESSING} which `size` they are to be made.",
    )


def _too_long(name: str) -> Rejected:
    return Rejected(
        "too_many_pixels", f"The picture {show(name)} is too narrow to be resized by its shorter side."
    )


def _unsupported(name: str, mode: str) -> Rejected:
    return Rejected(
        "unsupported_picture",
        f"The picture {show(name)} holds values of a kind that is not accepted ({show(mode)}).",
        hint="Save it with 8 bits for each channel.",
    )
