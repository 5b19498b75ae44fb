"""Attacks on the readers of data sets."""

import functools
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.acceptance.hostile import zips
from tests.acceptance.hostile.trap import Trap
from tests.acceptance.hostile.vector import Corpus
from tests.workers.engine.hostile import Entries, packed
from tests.workers.engine.parquets import FLOAT, crafted, forged, one_column, page, table, varint
from tests.workers.engine.parquets import struct as thrift
from tests.workers.engine.pictures import COLOURS, picture, png
from workers.engine.admit import safetensors

NPZ = Corpus("npz", "datasets", "data.npz")
SAFETENSORS = Corpus("safetensors", "datasets", "data.safetensors")
PARQUET = Corpus("parquet", "datasets", "data.parquet")
IMAGES = Corpus("images", "datasets", "pictures.zip")


@functools.cache
def arrays() -> Entries:
    """The entries of an ordinary `.npz`."""
    return {f"{name}.npy": _npy(np.ones((4, 3), np.float32)) for name in ("x", "y")}


def _npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def _described(header: str, data: bytes = b"") -> bytes:
    """A `.npz` of one array that is described so."""
    text = header.encode()
    return packed({"x.npy": b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + data})


def _shaped(shape: str) -> bytes:
    return _described(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}", bytes(12))


zips.add_to(NPZ, arrays, zips.CORE)


@NPZ.vector("pickled_objects")
def array_of_objects(trap: Trap) -> bytes:
    array = np.array([None], dtype=object)
    head = _npy(array, allow_pickle=True)
    return packed({"x.npy": head[: head.index(b"\n") + 1] + trap.pickled})


@NPZ.vector("malformed")
def pickle_for_an_array(trap: Trap) -> bytes:
    return packed({"x.npy": trap.pickled})


@NPZ.vector("malformed")
def header_that_is_code(trap: Trap) -> bytes:
    return _described(trap.expression)


@NPZ.vector("malformed")
def shape_that_is_code(trap: Trap) -> bytes:
    return _shaped(f"{trap.expression},")


@NPZ.vector("malformed")
def header_ten_thousand_deep(_: Trap) -> bytes:
    return _described("(" * 5_000 + ")" * 4_000)


@NPZ.vector("malformed")
def negative_dimension(_: Trap) -> bytes:
    return _shaped("-3,")


@NPZ.vector("malformed")
def dimension_of_2_to_the_63(_: Trap) -> bytes:
    return _shaped(f"{1 << 63},")


@NPZ.vector("malformed")
def dimension_that_is_no_number(_: Trap) -> bytes:
    return _shaped("nan,")


@NPZ.vector("malformed")
def header_bomb(_: Trap) -> bytes:
    return _described(" " * 50_000_000)


@NPZ.vector("hostile_name")
def code_as_a_name(trap: Trap) -> bytes:
    return packed({f"{trap.expression[:150]}.npy": _npy(np.ones(3))})


@NPZ.vector("not_finite")
def values_that_are_no_numbers(_: Trap) -> bytes:
    return packed({"x.npy": _npy(np.full((3, 2), np.nan))})


@NPZ.vector("unknown_entry")
def library_for_an_array(trap: Trap) -> bytes:
    return packed({**arrays(), "trap.so": trap.library()})


def _tensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _tensor(shape: Any, end: int = 12, **fields: Any) -> bytes:
    return _tensors({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, end], **fields}}, bytes(12))


@SAFETENSORS.vector("unsupported_format")
def nothing_but_a_pickle(trap: Trap) -> bytes:
    return trap.pickled


@SAFETENSORS.vector("malformed")
def negative_length(_: Trap) -> bytes:
    return _tensor([-3, -1])


@SAFETENSORS.vector("malformed")
def length_of_2_to_the_63(_: Trap) -> bytes:
    return _tensor([1 << 63])


@SAFETENSORS.vector("malformed")
def length_that_is_no_number(_: Trap) -> bytes:
    return _tensor([float("nan")])


@SAFETENSORS.vector("payload_size")
def tensors_that_overlap(_: Trap) -> bytes:
    one = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    return _tensors({"x": one, "y": one}, bytes(12))


@SAFETENSORS.vector("too_large")
def header_bomb_of_spaces(_: Trap) -> bytes:
    return _tensors(b"{" + b" " * safetensors.MAX_HEADER_BYTES + b"}")


@SAFETENSORS.vector("too_deep")
def ten_thousand_levels(_: Trap) -> bytes:
    return _tensors(b'{"a":' * 10_000 + b"0" + b"}" * 10_000)


@SAFETENSORS.vector("too_many_entries")
def very_many_empty_tensors(_: Trap) -> bytes:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return _tensors({f"x{place}": empty for place in range(200_000)})


@SAFETENSORS.vector("hostile_name")
def code_for_a_name(trap: Trap) -> bytes:
    return _tensors({trap.expression: {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, bytes(12))


@SAFETENSORS.vector("truncated_file", "unsupported_format")
def header_of_2_to_the_63_bytes(_: Trap) -> bytes:
    return (99_999_999).to_bytes(8, "little") + b"{}"


def _table(change: Any = None, pages: bytes = b"", description: Any = None) -> bytes:
    """A Parquet file whose description was changed, or one that is made up."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if change is not None:
            forged(table(path, {"x": pa.array(np.ones(6, np.float32))}), change)
        else:
            crafted(path, pages, description)
        return path.read_bytes()


def _about(fields: Any) -> Any:
    return fields[4][0][1][0][3]


@PARQUET.vector("zip_bomb")
def billion_values_of_nothing(_: Trap) -> bytes:
    pages = page(10**9, 16, bytes(16))
    return _table(pages=pages, description=one_column(pages, 10**9, 10**9))


@PARQUET.vector("too_large")
def page_of_a_terabyte(_: Trap) -> bytes:
    pages = page(6, 2**40, bytes(24))
    return _table(pages=pages, description=one_column(pages, 6, 6))


@PARQUET.vector("corrupt_file", "malformed")
def page_that_unpacks_to_more_than_it_says(_: Trap) -> bytes:
    """Zeros that a codec makes gigabytes of."""
    data = zlib.compress(bytes(1 << 28), 9, 31)
    pages = page(6, 24, data)
    description = one_column(pages, 6, 6)
    _about(description).update({4: 2})
    return _table(pages=pages, description=description)


@PARQUET.vector("too_complex")
def very_many_pages(_: Trap) -> bytes:
    pages = page(0, 0) * 200_000
    return _table(pages=pages, description=one_column(pages, 6, 6))


@PARQUET.vector("too_complex")
def million_columns(_: Trap) -> bytes:
    element = thrift({1: FLOAT, 4: b"x"})
    listed = b"\x15\x04\x19\xfc" + varint(1_000_001) + thrift({4: b"schema", 5: 1_000_000})
    return _table(description=listed + element * 1_000_000 + b"\0")


@PARQUET.vector("too_deep")
def lists_ten_thousand_deep(_: Trap) -> bytes:
    schema = [{4: b"schema", 5: 1}]
    schema += [{3: 0, 4: b"x", 5: 1, 6: 3}, {3: 2, 4: b"list", 5: 1}] * 10_000
    return _table(description={1: 2, 2: [*schema, {1: FLOAT, 4: b"e"}], 3: 0, 4: []})


@PARQUET.vector("external_data")
def column_in_another_file(_: Trap) -> bytes:
    return _table(lambda f: f[4][0][1][0].update({1: b"../../../etc/passwd"}))


@PARQUET.vector("malformed")
def negative_rows(_: Trap) -> bytes:
    return _table(lambda f: (f.update({3: -6}), f[4][0].update({3: -6})))


@PARQUET.vector("malformed")
def column_outside_of_the_file(_: Trap) -> bytes:
    return _table(lambda f: _about(f).update({7: 10**9}))


@PARQUET.vector("hostile_name")
def code_as_a_column(trap: Trap) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        columns = {trap.expression: pa.array([1.0])}
        return table(Path(folder) / "file", columns).read_bytes()


@functools.cache
def pictures() -> Entries:
    """The entries of an ordinary zip of pictures."""
    return {f"{name}/1.png": picture(pixels) for name, pixels in zip("abc", COLOURS, strict=False)}


def _with(name: str, data: bytes) -> bytes:
    return packed({**pictures(), name: data})


zips.add_to(IMAGES, pictures, zips.CORE)


@IMAGES.vector("too_many_pixels")
def picture_of_billions_of_pixels(_: Trap) -> bytes:
    return _with("a/2.png", png(60_000, 60_000))


@IMAGES.vector()
def pixels_that_unpack_without_end(_: Trap) -> bytes:
    """A small picture with half a gigabyte of zeros behind its pixels: they are not unpacked."""
    return _with("a/2.png", png(9, 12, bytes(1 << 29)))


@IMAGES.vector("corrupt_picture")
def text_that_unpacks_without_end(_: Trap) -> bytes:
    whole = png(9, 12, bytes(12 * 28))
    text = b"zTXt" + b"k\0\0" + zlib.compress(bytes(1 << 29))
    chunk = struct.pack(">L", len(text) - 4) + text + struct.pack(">L", zlib.crc32(text))
    return _with("a/2.png", whole[:33] + chunk + whole[33:])


@IMAGES.vector("unknown_picture")
def postscript_named_png(trap: Trap) -> bytes:
    """Pillow gives PostScript to a program."""
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 12\n(%pipe%{trap.shell}) (w) file\n"
    return _with("a/2.png", program.encode())


@IMAGES.vector("unknown_picture")
def tiff_named_png(_: Trap) -> bytes:
    return _with("a/2.png", picture(COLOURS[0], "TIFF"))


@IMAGES.vector("unknown_picture")
def animation_named_png(_: Trap) -> bytes:
    return _with("a/2.png", picture(COLOURS[0], "GIF"))


@IMAGES.vector("unknown_picture")
def library_named_png(trap: Trap) -> bytes:
    return _with("a/2.png", trap.library())


@IMAGES.vector("unknown_picture")
def pickle_named_png(trap: Trap) -> bytes:
    return _with("a/2.png", trap.pickled)


@IMAGES.vector("corrupt_picture")
def markers_without_end(_: Trap) -> bytes:
    return _with("a/2.jpg", b"\xff\xd8\xff\xe0\x00\x02" + b"\xff\xd0" * (4 << 20))


@IMAGES.vector("malformed", "too_many_pixels")
def resized_to_a_trillion_pixels(_: Trap) -> bytes:
    said = {"size": [1 << 20, 1 << 20], "mean": [0, 0, 0], "std": [1, 1, 1]}
    return _with("preprocessing.json", json.dumps(said).encode())


@IMAGES.vector("malformed")
def size_that_is_no_number(_: Trap) -> bytes:
    return _with("preprocessing.json", b'{"size": [NaN, 8]}')


@IMAGES.vector("too_deep", "malformed", "too_large")
def preprocessing_ten_thousand_deep(_: Trap) -> bytes:
    return _with("preprocessing.json", b'{"a":' * 10_000 + b"0" + b"}" * 10_000)


@IMAGES.vector("unknown_entry")
def code_beside_the_pictures(trap: Trap) -> bytes:
    return _with("a/preprocessing.py", trap.expression.encode())
