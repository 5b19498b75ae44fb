"""Hostile and broken `.npz` files."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engine.hostile import Canary, pack, rejection
from workers.engine.admit import npz


def admit(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    with npz.admit(path) as arrays:
        return [(array.name, array.dtype, array.shape) for array in arrays]


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    prefix = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + prefix + header.encode() + data


def saved(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def code(path: Path, entry: bytes, name: str = "x.npy") -> str:
    return rejection(admit, pack(path / "file", {name: entry})).code


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"


@pytest.mark.parametrize("dtype", npz._DTYPES.values())
def test_every_numeric_dtype_is_admitted(dtype: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", x=np.ones((2, 3), dtype), y=np.ones((), dtype), z=np.ones((0, 4), dtype))
    assert admit(tmp_path / "file.npz") == [("x", dtype, (2, 3)), ("y", dtype, ()), ("z", dtype, (0, 4))]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"x.npy": saved(np.ones((2, 3), np.float32), version=version)})
    assert admit(path) == [("x", "float32", (2, 3))]


def test_pickled_objects_are_refused_and_never_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    entry = saved(np.array([Canary(canary)], dtype=object), allow_pickle=True)
    assert code(tmp_path, entry) == "pickled_objects"
    assert code(tmp_path, pickle.dumps(Canary(canary))) == "malformed"
    assert not canary.exists()


def test_a_header_that_is_code_is_refused_and_never_evaluated(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    call = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for header in (call, HEADER.replace("(3,)", f"({call},)"), HEADER.replace("'<f4'", call)):
        assert code(tmp_path, npy(header, bytes(12))) == "malformed"
    assert not canary.exists()


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x09\x00" + bytes(20),
        b"PK\x03\x04 not numpy at all",
        npy(HEADER)[:-3],
        npy(""),
        npy("(" * 9000 + ")" * 900),
        npy(HEADER.replace("(3,)", "(-3,)"), bytes(12)),
        npy(HEADER.replace("(3,)", "(3.0,)"), bytes(12)),
        npy(HEADER.replace("(3,)", f"({9**20},)"), bytes(12)),
        npy(HEADER.replace("(3,)", f"({'1, ' * 40}1)"), bytes(4)),
        npy(HEADER.replace("(3,)", f"({2**41},)"), bytes(12)),
        npy(HEADER + " " * 11_000, bytes(12)),
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + HEADER.encode(),
    ],
)
def test_broken_headers_are_malformed(entry: bytes, tmp_path: Path) -> None:
    assert code(tmp_path, entry) == "malformed"


@pytest.mark.parametrize("size", [0, 11, 13, 400])
def test_bytes_that_do_not_fit_the_shape_are_refused(size: int, tmp_path: Path) -> None:
    assert code(tmp_path, npy(HEADER, bytes(size))) == "payload_size"


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "b"]),
        np.array([b"a"]),
        np.ones(3, ">f4"),
        np.ones(3, np.complex64),
        np.ones(3, "datetime64[s]"),
        np.ones(3, [("a", "<f4")]),
        np.ones(3, "V8"),
        np.ones(3, np.longdouble),
    ],
)
def test_what_is_not_numeric_is_refused(array: Any, tmp_path: Path) -> None:
    assert code(tmp_path, saved(array)) == "unsupported_dtype"


@pytest.mark.parametrize("name", ["x", "x.txt", "evil.so"])
def test_entries_that_are_no_arrays_are_refused(name: str, tmp_path: Path) -> None:
    assert code(tmp_path, b"", name) == "unknown_entry"


@pytest.mark.parametrize("name", ["a/b.npy", ".npy", "x y.npy", "ü.npy", f"{'x' * 201}.npy", "'x'.npy"])
def test_names_that_are_no_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    assert code(tmp_path, npy(HEADER, bytes(12)), name) == "hostile_name"


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "file.npz", x=np.zeros(340_000_000, np.uint8))
    assert (tmp_path / "file.npz").stat().st_size < 1_000_000
    assert rejection(admit, tmp_path / "file.npz").code == "zip_bomb"


def test_an_array_of_a_constant_is_no_bomb(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "file.npz", mask=np.ones((1000, 1000), np.int64))
    assert admit(tmp_path / "file.npz") == [("mask", "int64", (1000, 1000))]


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"x.npy": npy(HEADER, bytes(12))}, zipfile.ZIP_BZIP2)
    assert rejection(admit, path).code == "compressed_entry"
