"""Pickles of tensors: those that torch.save writes are read, and nothing that any pickle says is done."""

import io
import pickle
import pickletools
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.workers.engine.hostile import Canary, unpack
from tests.workers.engine.old_archives import saved
from workers.engine.admit.pickled import tensors_of
from workers.engine.errors import Rejected


def pickle_in(file: bytes) -> bytes:
    return unpack(io.BytesIO(file))["archive/data.pkl"]


def rejection(data: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        tensors_of(data, "the weights")
    return caught.value


def test_what_torch_saves_is_described() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "weight": nn.Parameter(base.clone()),
        "frozen": nn.Parameter(torch.ones(2), requires_grad=False),
        "part": base[1:, ::2],
        "turned": base.T,
        "scalar": torch.tensor(3, dtype=torch.int64),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    found = tensors_of(pickle_in(saved(state)), "the weights")
    for path, tensor in state.items():
        described = found[path]
        assert described.shape == tuple(tensor.shape)
        assert described.strides == tensor.stride()
        assert described.offset == tensor.storage_offset()
        assert described.dtype == str(tensor.dtype).removeprefix("torch.")
        assert described.requires_grad == tensor.requires_grad
        assert described.elements == tensor.untyped_storage().nbytes() // tensor.element_size()
    assert found["part"].key == found["turned"].key != found["weight"].key


def test_an_ordered_table_is_one_too() -> None:
    assert list(tensors_of(pickle_in(saved(OrderedDict(a=torch.ones(1)))), "the weights")) == ["a"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    canary = Canary(tmp_path / "canary")
    for value in (canary, {"weight": canary}, {"weight": [canary]}, {"weight": (torch.Size, canary)}):
        found = rejection(pickle.dumps(value, protocol))
        assert found.code in ("pickled_code", "malformed")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # a call by its name
        b"(S'true'\nios\nsystem\n.",  # an instance
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # a name from the stack
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)\x81.",  # an object made anew
        b"\x80\x02}ctorch\nFloatStorage\nb.",  # a state that is set
        b"\x80\x02\x82\x01.",  # from the registry of extensions
        b"\x80\x02ctorch.serialization\nload\n.",
        b"\x80\x02ctorch\nload\n.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x02Pevil\n.",
    ],
)
def test_what_describes_no_tensor_is_named(data: bytes) -> None:
    found = rejection(data)
    assert found.code == "pickled_code"
    assert "torch.export.save(torch.export.load" in str(found.hint)


@pytest.mark.parametrize(
    "state",
    [
        [torch.ones(1)],
        torch.ones(1),
        {"a": 1},
        {1: torch.ones(1)},
        {"a": {"b": torch.ones(1)}},
    ],
)
def test_anything_but_a_table_of_tensors_is_refused(state: object) -> None:
    assert rejection(pickle_in(saved(state))).code in ("malformed", "pickled_code")


@pytest.mark.parametrize(
    "state",
    [
        {"a": torch.ones(2, dtype=torch.complex64)},
        {"a": torch.ones(2, device="meta")},
    ],
)
def test_other_tensors_are_refused(state: object) -> None:
    assert rejection(pickle_in(saved(state))).code == "pickled_code"


_MANY = 200_000
_CALLS = b"h\x01h\x00R" * _MANY


def _filed(number: int) -> bytes:
    """An entry under a number whose hash is 0."""
    return b"\x8a\x0f" + (number * ((1 << 61) - 1)).to_bytes(15, "little") + b"Ns"


BOMBS: dict[str, Callable[[], bytes]] = {
    "a mark for every tuple": lambda: b"\x80\x02" + b"(N" * _MANY + b"t" * _MANY + b".",
    "a deep stack": lambda: b"\x80\x02" + b"N" * _MANY + b"(t0" * _MANY + b".",
    "one long tuple as every shape": lambda: (
        b"\x80\x02("
        + b"K\x01" * _MANY
        + b"tq\x00ctorch._utils\n_rebuild_tensor_v2\nq\x01"
        + b"h\x01h\x00R" * _MANY
        + b"."
    ),
    "keys that collide": lambda: (
        b"\x80\x02}"
        + b"".join(b"\x8a\x0f" + (n * ((1 << 61) - 1)).to_bytes(15, "little") + b"Ns" for n in range(50_000))
        + b"."
    ),
    "a number of many digits": lambda: b"\x80\x02L" + b"9" * _MANY + b"L\n.",
    "a text longer than the file": lambda: b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a number longer than the file": lambda: b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "no end": lambda: b"\x80\x02" + b"N" * _MANY,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_no_time(bomb: str) -> None:
    data = BOMBS[bomb]()
    began = time.process_time()
    assert rejection(data).code in ("malformed", "pickled_code")
    assert time.process_time() - began < 10.0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_are_read_or_refused(data: st.DataObject) -> None:
    good = bytearray(pickle_in(saved({"a": nn.Parameter(torch.ones(2, 3)), "b": torch.ones(4)})))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Rejected):
        assert set(map(type, tensors_of(bytes(good), "the weights"))) <= {str}


def test_the_standard_library_only_parses() -> None:
    """`genops` names opcodes: were it to look names up, this would fail."""
    assert [code.name for code, *_ in pickletools.genops(b"cno_such_module\nname\n.")] == ["GLOBAL", "STOP"]
