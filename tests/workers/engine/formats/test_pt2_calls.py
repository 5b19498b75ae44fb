"""How networks in `.pt2` are called: nested and keyword arguments, constants; and graphs in the graph."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tests.workers.engine.formats.zoo import BATCH
from tests.workers.engine.hostile import rejection
from workers.engine.formats import pt2
from workers.engine.graph.network import Network


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(
        self,
        batch: dict[str, Tensor],
        pair: tuple[Tensor, list[Tensor]],
        scale: float,
        *,
        attention_mask: Tensor | None = None,
        mode: str = "sum",
        nothing: None = None,
        deep: bool = False,
    ) -> dict[str, Any]:
        x = self.fc(batch["ids"]) + self.fc(batch["types"]).relu() * scale + self.fc(pair[0] - pair[1][0])
        if attention_mask is not None:
            x = x * attention_mask
        return {"logits": x if mode == "sum" else x.abs(), "hidden": (x.exp(), nothing), "last": [x[:, 0]]}


class Variadic(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return parts[0] - parts[1].exp()


class Listed(nn.Module):
    def forward(self, parts: list[Tensor]) -> tuple[Tensor]:
        return (parts[0] - parts[1].exp(),)


def rows(*shape: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, *shape)


@dataclass(frozen=True)
class Call:
    """A module, and its arguments: functions of the batch in the places of tensors."""

    build: Callable[[], nn.Module]
    positional: tuple[Any, ...]
    keyword: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.positional, dict(self.keyword)

    def draw(self, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = _each(self.arguments, lambda leaf: leaf(batch) if callable(leaf) else leaf)
        return args, kwargs

    def program(self) -> torch.export.ExportedProgram:
        torch.manual_seed(0)
        args, kwargs = self.draw(3)
        by_place, by_name = _each(self.arguments, lambda leaf: {0: BATCH} if callable(leaf) else None)
        named = {"parts": by_place} if self.build is Variadic else dict(zip(_NAMES, by_place, strict=False))
        shapes = {**named, **by_name} if self.build is not Listed else by_place
        return torch.export.export(self.build().eval(), args, kwargs, dynamic_shapes=shapes)


_NAMES = ("batch", "pair", "scale")


def _each(nested: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(nested, dict):
        return {key: _each(item, change) for key, item in nested.items()}
    if isinstance(nested, tuple | list):
        return type(nested)(_each(item, change) for item in nested)
    return change(nested)


CALLS = {
    "nested": Call(
        Nested,
        ({"ids": rows(3), "types": rows(3)}, (rows(3), [rows(3)]), 2.5),
        {"attention_mask": rows(1), "mode": "mean", "nothing": None, "deep": False},
        ("batch.ids", "batch.types", "pair.0", "pair.1.0", "attention_mask"),
    ),
    "keywords": Call(
        Nested,
        (),
        {"batch": {"types": rows(3), "ids": rows(3)}, "pair": (rows(3), [rows(3)]), "scale": 2},
        ("batch.types", "batch.ids", "pair.0", "pair.1.0"),
    ),
    "variadic": Call(Variadic, (rows(4), rows(4)), {}, ("parts_0", "parts_1")),
    "listed": Call(Listed, ([rows(2), rows(2)],), {}, ("parts.0", "parts.1")),
}


def tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def read(call: Call, folder: Path) -> tuple[torch.export.ExportedProgram, Network]:
    program = call.program()
    torch.export.save(program, folder / "model.pt2")
    return program, pt2.read(folder / "model.pt2")


@pytest.mark.parametrize("name", CALLS)
def test_inputs_are_named_by_the_way_to_them_and_taken_in_a_row(name: str, tmp_path: Path) -> None:
    program, network = read(CALLS[name], tmp_path)
    assert tuple(spec.name for spec in network.inputs) == CALLS[name].names
    for batch in (1, 3, 8):
        args, kwargs = CALLS[name].draw(batch)
        expected = tensors(program.module()(*args, **kwargs))
        found = tensors(network(*tensors((args, kwargs))))
        assert all(map(torch.equal, found, expected))


# Neither our package nor the tests can be imported where the artifact is opened.
_STOCK = """
import sys
sys.modules.update(dict.fromkeys(("workers", "app", "tests")))
import torch
for path in sys.argv[1:]:
    module = torch.export.load(f"{path}/written.pt2").module()
    args, kwargs, expected = torch.load(f"{path}/called.pt", weights_only=True)
    returned = module(*args, **kwargs)
    leaves, form = torch.utils._pytree.tree_flatten(returned)
    others, other = torch.utils._pytree.tree_flatten(expected)
    same = [a is b if a is None else torch.equal(a, b) for a, b in zip(leaves, others, strict=True)]
    print(form == other and all(same))
"""


def test_stock_torch_calls_what_is_written_as_what_was_uploaded(tmp_path: Path) -> None:
    for name, call in CALLS.items():
        (tmp_path / name).mkdir()
        program, network = read(call, tmp_path / name)
        pt2.write(network, tmp_path / name / "written.pt2")
        args, kwargs = call.draw(5)
        with torch.no_grad():
            expected = program.module()(*args, **kwargs)
        torch.save((args, kwargs, expected), tmp_path / name / "called.pt")
    command = [sys.executable, "-c", _STOCK, *(str(tmp_path / name) for name in CALLS)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert output.split() == ["True"] * len(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_written_reads_back_the_same(name: str, tmp_path: Path) -> None:
    network = read(CALLS[name], tmp_path)[1]
    pt2.write(network, tmp_path / "written.pt2")
    again = pt2.read(tmp_path / "written.pt2")
    assert again.signature == network.signature
    assert [spec.name for spec in again.inputs] == [spec.name for spec in network.inputs]
    assert again.sizes(4) == network.sizes(4)
    assert list(again.module.state_dict()) == list(network.module.state_dict())
    inputs = tensors(CALLS[name].draw(2))
    assert all(map(torch.equal, tensors(again(*inputs)), tensors(network(*inputs))))


def test_a_nested_mask_is_a_mask(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in read(CALLS["nested"], tmp_path)[1].inputs}
    assert specs["attention_mask"].is_mask
    assert not specs["batch.ids"].is_mask


@dataclass
class Own:
    """A class of the user's."""

    x: Tensor


class Owned(nn.Module):
    def forward(self, own: Own) -> Tensor:
        return own.x.exp()


class Owning(nn.Module):
    def forward(self, x: Tensor) -> Own:
        return Own(x.exp())


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    torch.export.register_dataclass(Own, serialized_type_name="tests.Own")


def test_an_argument_of_the_users_own_class_is_refused_by_name(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Owned(), (Own(torch.ones(2)),)), tmp_path / "model.pt2")
    found = rejection(pt2.read, tmp_path / "model.pt2")
    assert found.code == "unsupported_input"
    assert "tests.Own" in found.detail
    assert found.hint


def test_results_in_the_users_own_class_become_a_row_of_tensors(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Owning(), (torch.ones(2),)), tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    assert network.signature is None
    assert torch.equal(network(torch.ones(2)), torch.ones(2).exp())


class Flagged(nn.Module):
    def __init__(self, flag: bool) -> None:
        super().__init__()
        self.register_buffer("flag", torch.tensor(flag))
        self.yes, self.no = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(self.flag, self.yes, self.no, (x,))  # type: ignore[arg-type]
        return chosen


@pytest.mark.parametrize("flag", [True, False])
def test_a_choice_by_a_stored_value_leaves_its_layer_only(flag: bool, tmp_path: Path) -> None:
    module = Flagged(flag).eval()
    torch.export.save(torch.export.export(module, (torch.ones(3, 3),)), tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    targets = [node.target for node in network.module.graph.nodes if node.op == "call_function"]
    assert targets == [torch.ops.aten.linear.default]
    x = torch.randn(3, 3)
    assert torch.equal(network(x), (module.yes if flag else module.no)(x))


class Sheltered(nn.Module):
    """Parts that record no gradients, or are kept from automatic casts: as transformers' position codes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.first(x) * 2
            with torch.autocast("cpu", enabled=False):
                y = self.second(y.float())
        result: Tensor = x + y
        return result


def test_graphs_under_settings_that_change_nothing_are_laid_open(tmp_path: Path) -> None:
    module = Sheltered().eval()
    program = torch.export.export(module, (torch.ones(3, 3),), dynamic_shapes=({0: BATCH},))
    torch.export.save(program, tmp_path / "model.pt2")
    assert "wrap_with" in program.graph_module.code
    network = pt2.read(tmp_path / "model.pt2")
    assert "wrap_with" not in network.module.code
    x = torch.randn(5, 3)
    assert torch.equal(network(x), module(x))
