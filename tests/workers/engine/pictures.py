"""Zips of pictures, made by the tests that need them."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.workers.engine.hostile import Entries, pack

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 3)).astype(np.uint8)


def picture(pixels: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """A picture of pixels (height, width[, 3]) as a file, in another mode if asked for."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def zipped(path: Path, entries: Entries, **preprocessing: Any) -> Path:
    """An archive of pictures, with what is to be done to them where that is said."""
    said = {"preprocessing.json": json.dumps(preprocessing).encode()} if preprocessing else {}
    return pack(path, {**entries, **said})


def png(width: int, height: int, data: bytes = b"", depth: int = 8, colours: int = 2) -> bytes:
    """A PNG that says it is so large."""
    header = struct.pack(">LLBBBBB", width, height, depth, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(data))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
