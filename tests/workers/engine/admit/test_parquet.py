"""Hostile and broken Parquet files: refused by what they say of themselves, before a library sees them."""

import contextlib
import datetime
import decimal
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.workers.engine.hostile import rejection
from tests.workers.engine.parquets import FLOAT, crafted, forged, one_column, page, struct, table, varint
from workers.engine.admit import parquet
from workers.engine.admit.thrift import Fields
from workers.engine.errors import Rejected

FLOATS = pa.array(np.arange(6, dtype=np.float32))
LISTS = pa.array([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]] * 6)
DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
]


def refused(path: Path) -> Rejected:
    """The rejection, which takes about a second and little memory."""
    tracemalloc.start()
    began = time.process_time()
    found = rejection(parquet.admit, path)
    assert time.process_time() - began < 4  # tracing makes it several times slower
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    return found


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return table(tmp_path / "file", {"x": FLOATS, "lists": LISTS})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_every_numeric_dtype_is_admitted(dtype: str, version: Any, tmp_path: Path) -> None:
    array = pa.array(np.ones(3, dtype))
    path = table(
        tmp_path / "file", {"x": array, "y": pa.array([[value] * 4 for value in array])}, version=version
    )
    found = parquet.admit(path)
    wanted = "int64" if (dtype, version) == ("uint32", "1.0") else dtype  # as it is written there
    size = np.dtype(wanted).itemsize
    assert [(c.name, c.dtype, c.axes, c.row_bytes) for c in found.columns] == [
        ("x", wanted, 0, size),
        ("y", wanted, 1, 4 * size),
    ]


def test_rows_and_values_are_known_beforehand(good: Path) -> None:
    found = parquet.admit(good)
    assert found.rows == 6
    assert [(column.axes, column.values) for column in found.columns] == [(0, 1), (2, 6)]


@pytest.mark.parametrize(
    "options", [{"row_group_size": 2}, {"compression": "zstd"}, {"data_page_version": "2.0"}]
)
def test_however_it_was_written(options: dict[str, Any], tmp_path: Path) -> None:
    assert parquet.admit(table(tmp_path / "file", {"x": FLOATS, "y": LISTS}, **options)).rows == 6


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_the_usual_compressions_are_admitted(codec: str, tmp_path: Path) -> None:
    assert parquet.admit(table(tmp_path / "file", {"x": FLOATS}, compression=codec)).rows == 6


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (pa.array(["a"]), "text"),
        (pa.array([b"a"]), "text or bytes"),
        (pa.array([b"aa"], pa.binary(2)), "bytes"),
        (pa.array(["a"]).dictionary_encode(), "text"),
        (pa.array([decimal.Decimal("1.5")]), "decimal numbers"),
        (pa.array([datetime.datetime(2020, 1, 1)]), "timestamps"),  # noqa: DTZ001
        (pa.array([datetime.date(2020, 1, 1)]), "dates"),
        (pa.array([datetime.time(1, 2)]), "times"),
        (pa.array([{"a": 1}]), "a structure"),
        (pa.array([{"a": 1, "b": 2}]), "a structure"),
        (pa.array([[{"a": 1, "b": 2}]]), "a structure"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "a map"),
        (pa.array([["a"]]), "text"),
        (pa.nulls(1), "nothing but nulls"),
    ],
)
def test_what_is_not_numeric_is_named(array: Any, what: str, tmp_path: Path) -> None:
    found = refused(table(tmp_path / "file", {"fine": pa.array([1.0]), "bad": array}))
    assert found.code == "unsupported_dtype"
    assert found.detail.startswith(f"The column 'bad' holds {what},")


def test_numbers_that_were_a_dictionary_are_numbers(tmp_path: Path) -> None:
    path = table(tmp_path / "file", {"x": pa.array([1, 2, 1]).dictionary_encode()})
    assert parquet.admit(path).columns[0].dtype == "int64"


@pytest.mark.parametrize("lists", [[[1], [1, 2]], [[1, 2], [3, 4], [5]]])
def test_lists_of_several_lengths_are_refused(lists: Any, tmp_path: Path) -> None:
    found = refused(table(tmp_path / "file", {"x": pa.array(lists, pa.list_(pa.int64()))}))
    assert (found.code, "'x'" in found.detail) == ("lists_differ", True)


@pytest.mark.parametrize("name", ["a b", "", "ü", "../x", "x" * 201, "x..y", ".x"])
def test_names_that_are_no_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    assert refused(table(tmp_path / "file", {name: FLOATS})).code == "hostile_name"


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b"PK\x03\x04" * 9, b"PAR1" + b"\xff" * 4 + b"PAR1"]
)
def test_what_is_no_parquet_is_named_so(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    assert refused(tmp_path / "file").code == "truncated_file"


def test_a_file_cut_anywhere_is_refused(good: Path) -> None:
    whole = good.read_bytes()
    for length in range(0, len(whole), 7):
        good.write_bytes(whole[:length])
        assert rejection(parquet.admit, good).code in ("truncated_file", "malformed")


def test_a_footer_with_noise_is_refused_or_read_never_a_crash(good: Path) -> None:
    random = np.random.default_rng(0)
    whole = good.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for _ in range(300):
        data = bytearray(whole)
        data[random.integers(start, len(whole) - 8)] = random.integers(256)
        good.write_bytes(data)
        with contextlib.suppress(Rejected):  # a byte of a statistic or a name does no harm
            parquet.admit(good)


def _group(fields: Fields) -> Fields:
    group: Fields = fields[4][0]
    return group


def _about(fields: Fields) -> Fields:
    about: Fields = _group(fields)[1][0][3]
    return about


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda f: f.update({3: 7}), "malformed"),
        (lambda f: (f.update({3: 7}), _group(f).update({3: 7})), "malformed"),
        (lambda f: (f.update({3: 3}), _group(f).update({3: 3})), "lists_differ"),
        (lambda f: (f.update({3: -6}), _group(f).update({3: -6})), "malformed"),
        (lambda f: _about(f).update({5: 12}), "lists_differ"),
        (lambda f: _about(f).update({5: -1}), "malformed"),
        (lambda f: _about(f).update({7: 10**9}), "malformed"),
        (lambda f: _about(f).update({7: -5}), "malformed"),
        (lambda f: _about(f).update({9: -(10**12), 11: 0}), "malformed"),
        (lambda f: _about(f).update({9: 5, 11: 0}), "malformed"),
        (lambda f: _about(f).update({4: 3}), "compressed_entry"),
        (lambda f: _about(f).update({4: b"gzip"}), "malformed"),
        (lambda f: _group(f)[1].pop(), "malformed"),
        (lambda f: _group(f)[1][0].update({1: b"../../etc/passwd"}), "external_data"),
        (lambda f: _group(f)[1][0].update({9: b"secret"}), "encrypted_entry"),
        (lambda f: f.update({8: {1: {}}}), "encrypted_entry"),
        (lambda f: f.pop(2), "malformed"),
        (lambda f: f.update({2: []}), "malformed"),
        (lambda f: f[2].append({1: FLOAT, 4: b"more"}), "malformed"),
        (lambda f: f[2].pop(), "malformed"),
        (lambda f: f[2][0].update({5: -1}), "malformed"),
        (lambda f: f[2][1].update({4: b"lists"}), "malformed"),
        (lambda f: f[2][1].update({3: 2}), "unsupported_dtype"),
        (lambda f: (f[2][2].pop(10), f[2][2].pop(6)), "unsupported_dtype"),
        (lambda f: f[2][4].update({4: b"\xc7"}), "hostile_name"),
        (lambda f: f.update({4: [6]}), "malformed"),
        (lambda f: f.update({2: [6]}), "malformed"),
        (lambda f: _group(f).update({1: [6, 6]}), "malformed"),
    ],
)
def test_descriptions_that_lie_are_refused(change: Callable[[Fields], object], code: str, good: Path) -> None:
    assert refused(forged(good, change)).code == code


def test_encrypted_files_are_told_so(good: Path) -> None:
    good.write_bytes(good.read_bytes()[:-4] + b"PARE")
    assert refused(good).code == "encrypted_entry"


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    pages = page(10**9, 16, bytes(16))
    assert refused(crafted(tmp_path / "file", pages, one_column(pages, 10**9, 10**9))).code == "zip_bomb"


def test_one_row_of_everything_is_refused(tmp_path: Path) -> None:
    pages = page(10**8, 16, bytes(16))
    description = one_column(pages, 10**8, 1)
    description[2] = [
        {4: b"schema", 5: 1},
        {3: 0, 4: b"x", 5: 1, 6: 3},
        {3: 2, 4: b"l", 5: 1},
        {1: FLOAT, 3: 0, 4: b"e"},
    ]
    assert refused(crafted(tmp_path / "file", pages, description)).code == "too_large"


def test_an_array_of_a_constant_is_no_bomb(tmp_path: Path) -> None:
    path = table(tmp_path / "file", {"mask": pa.array(np.ones(1_000_000, np.int64))})
    assert path.stat().st_size < 100_000
    assert parquet.admit(path).rows == 1_000_000


@pytest.mark.parametrize("size", [parquet.MAX_PAGE_BYTES + 1, 2**31 - 1, 2**40])
def test_huge_pages_are_refused(size: int, tmp_path: Path) -> None:
    pages = page(6, size, bytes(24))
    assert refused(crafted(tmp_path / "file", pages, one_column(pages, 6, 6))).code == "too_large"


@pytest.mark.parametrize(
    "pages",
    [
        page(6, -1, bytes(24)),
        page(-6, 24, bytes(24)),
        page(5, 24, bytes(24)),
        page(3, 24, bytes(24)) + page(4, 24, bytes(24)),
        page(6, 24, bytes(24)) + b"\x15",
        page(6, 24, bytes(24))[:-1],
        struct({1: 9, 2: 1, 3: 0}),
        struct({1: 0, 2: 1, 3: 0}),
        b"\xff" * 50,
    ],
)
def test_pages_that_lie_are_refused(pages: bytes, tmp_path: Path) -> None:
    assert refused(crafted(tmp_path / "file", pages, one_column(pages, 6, 6))).code == "malformed"


def test_a_million_pages_are_refused(tmp_path: Path) -> None:
    pages = page(0, 0) * 200_000
    assert refused(crafted(tmp_path / "file", pages, one_column(pages, 6, 6))).code == "too_complex"


def test_a_schema_ten_thousand_lists_deep_is_refused(tmp_path: Path) -> None:
    schema = [{4: b"schema", 5: 1}]
    schema += [{3: 0, 4: b"x", 5: 1, 6: 3}, {3: 2, 4: b"list", 5: 1}] * 10_000
    path = crafted(tmp_path / "file", b"", {1: 2, 2: [*schema, {1: FLOAT, 4: b"e"}], 3: 0, 4: []})
    assert refused(path).code == "too_deep"


def test_a_million_columns_are_refused(tmp_path: Path) -> None:
    element = struct({1: FLOAT, 4: b"x"})
    listed = (
        b"\x15\x04\x19\xfc" + varint(1_000_001) + struct({4: b"schema", 5: 1_000_000}) + element * 1_000_000
    )
    assert refused(crafted(tmp_path / "file", b"", listed + b"\0")).code == "too_complex"


def test_two_thousand_columns_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "file", {f"x{place}": FLOATS for place in range(2_000)})
    assert refused(path).code == "too_many_entries"


def test_a_description_of_half_a_million_values_is_read_in_time(tmp_path: Path) -> None:
    group = one_column(b"", 0, 0)[4][0]
    description = one_column(b"", 0, 0) | {4: [group] * 40_000}
    path = crafted(tmp_path / "file", b"", description)
    began = time.process_time()
    assert rejection(parquet.admit, path).code == "too_complex"
    assert time.process_time() - began < 3


def test_a_footer_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = crafted(tmp_path / "file", b"", bytes(parquet.MAX_FOOTER_BYTES + 1))
    assert refused(path).code == "too_large"
