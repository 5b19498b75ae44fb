"""Attacks on the whole reader: nothing runs, only `Rejected` comes out, and the next good file is read."""

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from tests.workers.engine.formats.zoo import BATCH, ZOO
from tests.workers.engine.hostile import Canary, Entries, edit_json, pack, rejection, unpack
from tests.workers.engine.mutations import mutate, places
from tests.workers.engine.pt2_forgeries import (
    IGNORED,
    MODEL,
    REFUSED,
    body_of,
    graph_module,
    hide_scan_in_scan,
    scan_of,
)
from workers.engine.errors import Rejected
from workers.engine.formats import pt2


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    ZOO["mlp"].save(path)
    return unpack(path)


@pytest.mark.parametrize("poison", [*IGNORED, *REFUSED])
def test_code_in_the_program_never_runs(
    poison: Callable[[Any, str], None], good: Entries, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    code = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    path = pack(tmp_path / "forged.pt2", edit_json(good, MODEL, lambda document: poison(document, code)))
    if poison in IGNORED:
        assert pt2.read(path).inputs[0].name == "input"
    else:
        assert rejection(pt2.read, path).code == REFUSED[poison]
    assert not canary.exists()


@pytest.mark.parametrize(
    "entry",
    [
        "data/weights/weight_0",
        "data/constants/tensor_0",
        "data/constants/custom_obj_0",
        "data/sample_inputs/model.pt",
        "models/model.json",
        "data/weights/model_weights_config.json",
    ],
)
@pytest.mark.parametrize("pickled", [True, False])
def test_pickles_are_never_loaded(entry: str, pickled: bool, good: Entries, tmp_path: Path) -> None:
    def claim(document: Any) -> None:
        document["config"]["0.weight"].update(use_pickle=pickled)

    canary = tmp_path / "canary"
    entries = good | {f"model/{entry}": pickle.dumps(Canary(canary))}
    if pickled and "config" not in entry:
        entries = edit_json(entries, "model_weights_config.json", claim)
    path = pack(tmp_path / "forged.pt2", entries)
    if pickled or ("sample_inputs" not in entry and "tensor_0" not in entry):
        assert isinstance(rejection(pt2.read, path), Rejected)
    else:
        assert pt2.read(path).inputs
    assert not canary.exists()


def _poisoned(poison: Callable[[Any, str], None], document: Any) -> None:
    poison(document, "exit()")


def test_a_good_file_is_read_after_every_attack(good: Entries, tmp_path: Path) -> None:
    for poison in REFUSED:
        entries = edit_json(good, MODEL, functools.partial(_poisoned, poison))
        rejection(pt2.read, pack(tmp_path / "forged.pt2", entries))
        assert pt2.read(pack(tmp_path / "good.pt2", good))(torch.ones(2, 6)).shape == (2, 3)


def test_nothing_is_written_outside_or_inside(good: Entries, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = pack(folder / "forged.pt2", good | {"../evil": b"1", "model/../../evil": b"1"})
    assert rejection(pt2.read, path).code == "unsafe_entry"
    assert [item.name for item in tmp_path.rglob("*")] == ["inner", "forged.pt2"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("forward", "hostile_name"),
        ("forward.weight", "hostile_name"),
        ("training", "hostile_name"),
        ("_parameters", "hostile_name"),
        ("register_buffer.weight", "hostile_name"),
        ("0.bias.weight", "hostile_name"),
    ],
)
def test_names_that_would_replace_parts_of_a_module_are_refused(
    path: str, code: str, good: Entries, tmp_path: Path
) -> None:
    def rename_weight(document: Any) -> None:
        document["config"][path] = document["config"].pop("2.weight")

    def rename(document: Any) -> None:
        specs = graph_module(document)["signature"]["input_specs"]
        specs[[spec.get("parameter", {}).get("parameter_name") for spec in specs].index("2.weight")][
            "parameter"
        ]["parameter_name"] = path

    entries = edit_json(edit_json(good, MODEL, rename), "model_weights_config.json", rename_weight)
    assert rejection(pt2.read, pack(tmp_path / "forged.pt2", entries)).code == code


def test_an_unknown_overload_is_named(good: Entries, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        graph_module(document)["graph"]["nodes"][0]["target"] = "torch.ops.aten.linear.evil"

    found = rejection(pt2.read, pack(tmp_path / "forged.pt2", edit_json(good, MODEL, change)))
    assert (found.code, "aten.linear.evil" in found.detail) == ("unknown_operator", True)


def test_a_graph_that_torch_cannot_run_is_rejected_with_the_reason(good: Entries, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        graph_module(document)["graph"]["nodes"][0]["inputs"][1]["arg"]["as_tensor"]["name"] = "p_2_weight"

    found = rejection(pt2.read, pack(tmp_path / "forged.pt2", edit_json(good, MODEL, change)))
    assert found.code == "cannot_trace"
    assert "\n" not in found.detail
    assert "site-packages" not in found.detail


def test_tensors_of_two_types_in_one_entry_cannot_break_the_reader(good: Entries, tmp_path: Path) -> None:
    def overlap(document: Any) -> None:
        document["config"]["0.bias"]["path_name"] = document["config"]["2.bias"]["path_name"]
        document["config"]["0.bias"]["tensor_meta"].update(dtype=8, sizes=[{"as_int": 1}])

    path = pack(tmp_path / "forged.pt2", edit_json(good, "model_weights_config.json", overlap))
    assert rejection(pt2.read, path).code == "cannot_trace"


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    path = tmp_path_factory.mktemp("looping") / "model.pt2"
    ZOO["scan"].save(path)
    return unpack(path)


def read_from_outside(document: Any) -> None:
    body_of(document)["nodes"][0]["inputs"][0]["arg"]["as_tensor"]["name"] = "x"


def write_into_carried_values(document: Any) -> None:
    name = body_of(document)["inputs"][0]["as_tensor"]["name"]
    written = {"name": "self", "arg": {"as_tensor": {"name": name}}, "kind": 1}
    body_of(document)["nodes"][-1].update(target="torch.ops.aten.zero_.default", inputs=[written])


LOOPS: list[tuple[Callable[[Any], object], str]] = [
    (hide_scan_in_scan, "unknown_operator"),
    (read_from_outside, "unknown_value"),
    (write_into_carried_values, "mutates_state"),
    (lambda d: body_of(d)["nodes"][0].update(target="torch.ops.aten.from_file.default"), "unknown_operator"),
    (lambda d: body_of(d)["inputs"].append(body_of(d)["inputs"][0]), "malformed"),
    (lambda d: body_of(d)["inputs"].pop(), "unknown_value"),
    (lambda d: body_of(d)["inputs"].append({"as_tensor": {"name": "more"}}), "malformed"),
    (lambda d: body_of(d)["inputs"].append({"as_int": 3}), "unsupported_argument"),
    (lambda d: body_of(d)["inputs"][0].update(as_tensor={"name": "x;y"}), "hostile_name"),
    (lambda d: body_of(d)["outputs"].pop(), "malformed"),
    (lambda d: body_of(d)["outputs"][0].update(as_tensor={"name": "x"}), "unknown_value"),
    (lambda d: body_of(d).pop("nodes"), "malformed"),
    (lambda d: scan_of(d)["inputs"].pop(), "malformed"),
    (lambda d: scan_of(d)["inputs"].reverse(), "malformed"),
    (lambda d: scan_of(d)["inputs"][3].update(kind=2, name="additional_inputs"), "malformed"),
    (lambda d: scan_of(d)["inputs"][1].update(arg={"as_int": 3}), "unsupported_argument"),
    (lambda d: scan_of(d).update(target="torch.ops.higher_order.cond"), "malformed"),
    (lambda d: scan_of(d).update(target="torch.ops.aten.linear.default"), "unsupported_argument"),
]


@pytest.mark.parametrize("place", range(len(LOOPS)))
def test_the_body_of_a_loop_is_admitted_as_strictly(place: int, looping: Entries, tmp_path: Path) -> None:
    change, code = LOOPS[place]
    assert rejection(pt2.read, pack(tmp_path / "forged.pt2", edit_json(looping, MODEL, change))).code == code


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    path = tmp_path_factory.mktemp("choosing") / "model.pt2"
    ZOO["choice"].save(path)
    return unpack(path)


def cond_of(document: Any) -> Any:
    nodes = graph_module(document)["graph"]["nodes"]
    (found,) = (node for node in nodes if node["target"].endswith(".cond"))
    return found


def way_of(document: Any, place: int = 1) -> Any:
    return cond_of(document)["inputs"][place]["arg"]["as_graph"]["graph"]


def nest(document: Any, depth: int, target: str = "cond") -> None:
    """Choices inside of choices, each in the first way of the one around it."""
    first = copy.deepcopy(cond_of(document))
    inner = first
    for _ in range(depth):
        outer = copy.deepcopy(first)
        way = outer["inputs"][1]["arg"]["as_graph"]["graph"]
        node = copy.deepcopy(inner) | {"outputs": [{"as_tensor": {"name": "deeper"}}]}
        node["target"] = f"torch.ops.higher_order.{target}"
        node["inputs"][0]["arg"] = {"as_bool": True}
        node["inputs"][3]["arg"]["as_tensors"] = [item["as_tensor"] for item in way["inputs"]]
        way["nodes"].append(node)
        inner = outer
    cond_of(document).update(inner)


def repeat(document: Any, times: int) -> None:
    node = cond_of(document)
    graph_module(document)["graph"]["nodes"] += [
        copy.deepcopy(node) | {"outputs": [{"as_tensor": {"name": f"again_{place}"}}]}
        for place in range(times)
    ]


CHOICES: list[tuple[Callable[[Any], object], str]] = [
    (lambda d: nest(d, 5), "too_deep"),
    (lambda d: nest(d, 1, "scan"), "unknown_operator"),
    (lambda d: nest(d, 1, "while_loop"), "unknown_operator"),
    (lambda d: repeat(d, 200), "too_complex"),
    (lambda d: way_of(d)["nodes"][0]["inputs"][0]["arg"]["as_tensor"].update(name="gt"), "unknown_value"),
    (lambda d: way_of(d)["nodes"][0].update(target="torch.ops.aten.from_file.default"), "unknown_operator"),
    (lambda d: way_of(d, 2)["inputs"].append({"as_tensor": {"name": "more"}}), "malformed"),
    (lambda d: way_of(d, 2)["outputs"].append(way_of(d, 2)["outputs"][0]), "malformed"),
    (lambda d: way_of(d)["inputs"][0].update(as_tensor={"name": "x;y"}), "hostile_name"),
    (lambda d: cond_of(d)["inputs"].pop(), "malformed"),
    (lambda d: cond_of(d)["inputs"].reverse(), "malformed"),
    (lambda d: cond_of(d)["inputs"][0].update(arg={"as_int": 3}), "unsupported_argument"),
    (lambda d: cond_of(d)["inputs"][1].update(arg={"as_bool": True}), "malformed"),
    (lambda d: cond_of(d)["inputs"][1].update(arg={"as_graph": {"name": "true_graph_0"}}), "malformed"),
    (lambda d: cond_of(d).update(target="torch.ops.higher_order.wrap_with_set_grad_enabled"), "malformed"),
    (lambda d: cond_of(d).update(target="torch.ops.higher_order.wrap_with_autocast"), "malformed"),
]


@pytest.mark.parametrize("place", range(len(CHOICES)))
def test_the_ways_of_a_choice_are_admitted_as_strictly(place: int, choosing: Entries, tmp_path: Path) -> None:
    change, code = CHOICES[place]
    assert rejection(pt2.read, pack(tmp_path / "forged.pt2", edit_json(choosing, MODEL, change))).code == code


def test_choices_in_choices_are_read_as_deep_as_is_allowed(choosing: Entries, tmp_path: Path) -> None:
    path = pack(tmp_path / "deep.pt2", edit_json(choosing, MODEL, lambda document: nest(document, 3)))
    assert pt2.read(path)(torch.ones(3, 6)).shape == (3, 6)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.view(-1).add_(1.0)  # type: ignore[operator]
        return torch.mul(x, self.calls)  # type: ignore[arg-type]


class Repeating(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return while_loop(lambda x: x.sum() < 100, lambda x: (x * 2,), (x,))  # type: ignore[no-untyped-call]


class Casting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu"):
            return x @ x.mT


@pytest.mark.parametrize(
    ("module", "code"),
    [(Counting(), "mutates_state"), (Repeating(), "unknown_operator"), (Casting(), "unknown_operator")],
)
def test_models_outside_of_what_is_supported_are_rejected(
    module: nn.Module, code: str, tmp_path: Path
) -> None:
    program = torch.export.export(module.eval(), (torch.ones(3, 2),), dynamic_shapes=({0: BATCH},))
    torch.export.save(program, tmp_path / "model.pt2")
    found = rejection(pt2.read, tmp_path / "model.pt2")
    assert found.code == code
    assert found.hint


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, 1, -1, 2, 3, 7, 2**31, 2**62, 2**63]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["input", "p_0_weight", "linear", "torch.ops.aten.relu.default", "as_tensor", "__class__"]
    ),
    st.just([]),
    st.just({}),
    st.just({"as_int": 5}),
    st.just({"as_tensor": {"name": "input"}}),
    st.just([{"as_int": 1}] * 3),
)


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        (MODEL, "good"),
        ("model_weights_config.json", "good"),
        pytest.param(MODEL, "looping", marks=pytest.mark.slow),
        pytest.param(MODEL, "choosing", marks=pytest.mark.slow),
    ],
)
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_mutated_document_is_read_or_rejected(
    entry: str, source: str, data: st.DataObject, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    def change(document: Any) -> None:
        where = [place for place in places(document) if "module_call_graph" not in place]
        place = data.draw(st.sampled_from(where))
        mutate(document, place, data.draw(JUNK), data.draw(st.sampled_from(["replace", "remove", "repeat"])))

    entries: Entries = request.getfixturevalue(source)
    path = pack(tmp_path / "forged.pt2", edit_json(entries, entry, change))
    try:
        outcome = pt2.read(path).inputs[0].name
    except Rejected as rejected:
        outcome = rejected.code
    assert outcome
