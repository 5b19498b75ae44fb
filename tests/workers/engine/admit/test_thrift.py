"""Structures are read as they were written; forged ones end soon."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.engine.parquets import struct, varint
from workers.engine.admit.thrift import Budget, Reader
from workers.engine.errors import Rejected

INTEGERS = st.integers(-(2**63), 2**63 - 1)
LISTS = st.lists(INTEGERS, max_size=20) | st.lists(st.binary(max_size=5), max_size=20)
NUMBERS = st.integers(1, 300)
STRUCTS = st.recursive(
    st.dictionaries(NUMBERS, INTEGERS | st.booleans() | st.binary(max_size=20) | LISTS, max_size=6),
    lambda inner: st.dictionaries(NUMBERS, inner | st.lists(inner, max_size=3), max_size=3),
    max_leaves=5,
)


def read(data: bytes, values: int = 10_000) -> object:
    return Reader(data, Budget(values)).struct()


@given(STRUCTS)
def test_structures_are_read_as_written(fields: dict[int, object]) -> None:
    assert read(struct(fields)) == fields


@given(STRUCTS.filter(bool), st.data())
def test_a_structure_that_is_cut_says_so(fields: dict[int, object], data: st.DataObject) -> None:
    whole = struct(fields)
    with pytest.raises(EOFError):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(EOFError, Rejected):
        read(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x1c" * 10_000, "too_deep"),
        (b"\x19" + b"\x19" * 10_000, "too_deep"),
        (b"\x19\xf6" + varint(10**12), "too_complex"),
        (b"\x1b\x00", "malformed"),  # a map
        (b"\x16" + b"\xff" * 11, "malformed"),
        (b"\x16\x02\x06\x02\x02", "malformed"),  # field 1 twice
    ],
)
def test_forged_structures_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(Rejected) as raised:
        read(data)
    assert raised.value.code == code


def test_the_budget_is_of_all_values() -> None:
    data = struct({1: [1] * 50, 2: {1: 1, 2: 2}})
    assert read(data, 54) == {1: [1] * 50, 2: {1: 1, 2: 2}}
    with pytest.raises(Rejected) as raised:
        read(data, 53)
    assert raised.value.code == "too_complex"
