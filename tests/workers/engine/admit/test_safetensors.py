"""Hostile and broken safetensors files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.workers.engine.hostile import rejection
from workers.engine.admit import safetensors


def admit(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    with safetensors.admit(path) as arrays:
        return [(array.name, array.dtype, array.shape) for array in arrays]


def forged(folder: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "file").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return folder / "file"


def array(begin: Any, end: Any, shape: Any = (3,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_what_the_library_writes_is_admitted(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "x": np.ones((2, 3), np.float32),
        "y": np.ones(2, np.int64),
        "z": np.ones((), np.bool_),
    }
    save_file(arrays, tmp_path / "file", metadata={"made": "by hand"})
    assert sorted(admit(tmp_path / "file")) == [
        ("x", "float32", (2, 3)),
        ("y", "int64", (2,)),
        ("z", "bool", ()),
    ]


@pytest.mark.parametrize("content", [b"", b"1234", b"PK\x03\x04" + bytes(40), b"\xff" * 40, bytes(40)])
def test_what_is_no_such_file_is_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert rejection(admit, tmp_path / "file").code == "truncated_file"


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"x": array(0, 12), "y": array(12, 20)}, "payload_size"),
        ({"x": array(0, 12), "y": array(16, 28)}, "payload_size"),
        ({"x": array(0, 12), "y": array(0, 12)}, "payload_size"),
        ({"x": array(0, 12), "y": array(6, 18)}, "payload_size"),
        ({"x": array(0, 12)}, "payload_size"),
        ({"x": array(-12, 0)}, "payload_size"),
        ({"x": array(12, 0)}, "payload_size"),
        ({"x": array(0, 2**62, [2**60])}, "malformed"),
        ({"x": array(0, 12, [-3, -1])}, "malformed"),
        ({"x": array(0, 12, [1] * 99)}, "malformed"),
        ({"x": array(0, 12, [3.0])}, "malformed"),
        ({"x": array(0, 12, "3")}, "malformed"),
        ({"x": array(0, True)}, "malformed"),
        ({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0]}}, "malformed"),
        ({"x": {"dtype": "F32", "shape": [3]}}, "malformed"),
        ({"x": None}, "malformed"),
        ({"x": array(0, 12, dtype="F8_E4M3")}, "unsupported_dtype"),
        ({"x": array(0, 12, dtype=7)}, "malformed"),
        ({"../x": array(0, 12)}, "hostile_name"),
        ({"": array(0, 12)}, "hostile_name"),
        (["x"], "malformed"),
        (b"{not json}", "malformed"),
        (b"\xff\xfe{}", "malformed"),
        (b"[" * 100_000, "too_deep"),
    ],
)
def test_headers_that_lie_are_rejected(table: Any, code: str, tmp_path: Path) -> None:
    assert rejection(admit, forged(tmp_path, table, bytes(28))).code == code


def test_a_cut_file_is_rejected(tmp_path: Path) -> None:
    save_file({"x": np.ones(100, np.float32)}, tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    for length in (0, 7, 8, 20, len(whole) - 1):
        (tmp_path / "file").write_bytes(whole[:length])
        assert rejection(admit, tmp_path / "file").code in ("truncated_file", "payload_size")


def test_a_header_bomb_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    text = b"{" + b" " * safetensors.MAX_HEADER_BYTES + b"}"
    assert rejection(admit, forged(tmp_path, text)).code == "too_large"


def test_a_million_empty_arrays_are_refused(tmp_path: Path) -> None:
    table = {f"x{place}": array(0, 0, [0]) for place in range(safetensors.MAX_ARRAYS + 1)}
    assert rejection(admit, forged(tmp_path, table)).code == "too_many_entries"
