"""Hostile and broken `.pt2` files: each is a rejection of its own, and no code of theirs runs."""

import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.workers.engine.admit.pt2_files import admit, change_model, rejected
from tests.workers.engine.hostile import Canary, Entries, edit_json, pack, packed, unpack
from tests.workers.engine.old_archives import STATES, as_torch_2_5, saved, weights_of
from tests.workers.engine.pt2_forgeries import MODEL, WEIGHTS, graph
from workers.engine.admit import operators, pt2
from workers.engine.admit.program import Axis


def specs(document: Any, way: str = "input") -> Any:
    return document["graph_module"]["signature"][f"{way}_specs"]


def test_a_good_file_is_admitted(good: Entries, tmp_path: Path) -> None:
    program = admit(pack(tmp_path / "good.pt2", good))
    assert [(spec.name, spec.dtype, spec.shape[1]) for spec in program.inputs] == [("x", "float32", 3)]
    assert isinstance(program.inputs[0].shape[0], Axis)
    assert {state.path: state.kind for state in program.states} == {
        "fc.weight": "parameter",
        "fc.bias": "parameter",
        "shift": "buffer",
    }
    assert program.calls[-1].operator == "torch.ops.aten.add.Tensor"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("data/aotinductor/model/model.so", "native_code"),
        ("data/aotinductor/model/wrapper.json", "native_code"),
        ("data/constants/evil.so", "native_code"),
        ("data/constants/custom_obj_0", "unknown_entry"),
        ("data/constants/opaque_obj_0", "unknown_entry"),
        ("data/weights/weight_0x", "unknown_entry"),
        ("models/other.json", "unknown_entry"),
        ("extra/readme.txt", "unknown_entry"),
        ("code/evil.py", "unknown_entry"),
        ("data/weights/model.pt", "unknown_entry"),
        ("../../evil", "unsafe_entry"),
    ],
)
def test_entries_that_do_not_belong_are_named(name: str, code: str, good: Entries, tmp_path: Path) -> None:
    found = rejected(good | {f"model/{name}": b"\x7fELF"}, tmp_path)
    assert found.code == code
    assert name in found.detail


def test_a_second_root_is_rejected(good: Entries, tmp_path: Path) -> None:
    assert rejected(good | {"other/archive_format": b"pt2"}, tmp_path).code == "unknown_entry"


@pytest.fixture
def old(tmp_path: Path) -> Entries:
    """The archive of a linear layer as torch 2.5 wrote it."""
    program = torch.export.export(nn.Linear(3, 2).eval(), (torch.ones(4, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    return as_torch_2_5(unpack(tmp_path / "model.pt2"), program)


def test_an_archive_of_old_torch_is_admitted(old: Entries, tmp_path: Path) -> None:
    program = admit(pack(tmp_path / "old.pt2", old))
    assert [state.path for state in program.states] == ["weight", "bias"]
    assert all(state.payload.requires_grad for state in program.states)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("evil.py", lambda _: b"", "unknown_entry"),
        ("extra_files/readme", lambda _: b"", "unknown_entry"),
        (STATES, lambda _: b"PK", "not_a_zip"),
        (STATES, lambda _: saved({"weight": torch.ones(2, 3)}), "malformed"),
        (STATES, lambda _: saved(nn.Linear(3, 2)), "pickled_code"),
        (STATES, lambda old: _forged(old, "archive/evil", b""), "unknown_entry"),
        (STATES, lambda old: _forged(old, "archive/data/0", b"abc"), "payload_size"),
        (STATES, lambda old: _forged(old, "archive/byteorder", b"big"), "unsupported_byte_order"),
        ("serialized_constants.pt", lambda old: old[STATES] + b"more", "truncated_archive"),
    ],
)
def test_a_forged_archive_of_old_torch_is_refused(
    name: str, data: Callable[[Entries], bytes], code: str, old: Entries, tmp_path: Path
) -> None:
    assert rejected(old | {name: data(old)}, tmp_path).code == code


def _forged(old: Entries, name: str, data: bytes) -> bytes:
    """The weights with one entry of theirs changed."""
    return packed(weights_of(old) | {name: data})


def test_weights_in_both_ways_are_refused(good: Entries, tmp_path: Path) -> None:
    both = good | {"model/data/weights/model.pt": saved({"fc.weight": torch.ones(2, 3)})}
    assert rejected(both, tmp_path).code == "unknown_entry"


def as_torch_2_9(document: Any) -> None:
    """What releases from 2.9 on may lack: names of arguments, guards, and fields of nodes that came later."""
    document["schema_version"].update(minor=8)
    document.pop("guards_code", None)
    document["graph_module"]["module_call_graph"][0]["signature"].pop("forward_arg_names")
    for node in graph(document)["nodes"]:
        node.pop("name", None)
        node.pop("is_hop_single_tensor_return", None)


def test_an_archive_of_the_first_release_with_plain_weights(good: Entries, tmp_path: Path) -> None:
    program = admit(pack(tmp_path / "old.pt2", change_model(good, as_torch_2_9)))
    assert [spec.name for spec in program.inputs] == ["x"]
    assert program.signature is None


@pytest.mark.parametrize("suffix", [MODEL, WEIGHTS, "archive_format", "byteorder", "weight_0"])
def test_missing_entries_are_named(suffix: str, good: Entries, tmp_path: Path) -> None:
    entries = {name: data for name, data in good.items() if not name.endswith(suffix)}
    found = rejected(entries, tmp_path)
    assert found.code == "missing_entry"
    assert suffix in found.detail


@pytest.mark.parametrize(
    ("suffix", "data", "code"),
    [
        ("byteorder", b"big", "unsupported_byte_order"),
        ("archive_format", b"zip", "malformed"),
        (MODEL, b"", "malformed"),
        (MODEL, b"[]", "malformed"),
        (MODEL, b"\xff\xfe", "malformed"),
        (MODEL, b'{"a":' * 100_000, "too_deep"),
        (MODEL, b'{"a":' + b"9" * 5000 + b"}", "malformed"),
        (WEIGHTS, b'{"config": []}', "malformed"),
    ],
)
def test_broken_documents_are_rejected(
    suffix: str, data: bytes, code: str, good: Entries, tmp_path: Path
) -> None:
    (name,) = (name for name in good if name.endswith(suffix))
    assert rejected(good | {name: data}, tmp_path).code == code


def test_a_huge_document_is_refused_before_it_is_parsed(
    good: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pt2, "MAX_JSON_BYTES", 1000)
    assert rejected(good, tmp_path).code == "too_large"


def test_a_graph_of_very_many_calls_is_refused(
    good: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = len(admit(pack(tmp_path / "good.pt2", good)).calls)
    monkeypatch.setattr("workers.engine.admit.calls.MAX_NODES", calls)
    assert admit(tmp_path / "good.pt2").inputs
    monkeypatch.setattr("workers.engine.admit.calls.MAX_NODES", calls - 1)
    assert rejected(good, tmp_path).code == "too_complex"


def weight(document: Any) -> Any:
    return document["config"]["fc.weight"]


def meta(document: Any) -> Any:
    return weight(document)["tensor_meta"]


WEIGHT_CHANGES: list[tuple[Callable[[Any], object], str]] = [
    (lambda d: weight(d).update(use_pickle=True), "pickled_weights"),
    (lambda d: weight(d).update(tensor_meta=None), "malformed"),
    (lambda d: weight(d).update(path_name="../../etc/passwd"), "hostile_name"),
    (lambda d: weight(d).update(path_name="weight_99"), "missing_entry"),
    (lambda d: weight(d).update(path_name=0), "malformed"),
    (lambda d: meta(d).update(dtype=99), "unsupported_dtype"),
    (lambda d: meta(d).update(dtype=10), "unsupported_dtype"),
    (lambda d: meta(d).update(dtype="float32"), "malformed"),
    (lambda d: meta(d).update(dtype=8), "payload_size"),
    (lambda d: meta(d).update(layout=1), "unsupported_layout"),
    (lambda d: meta(d)["device"].update(type="cuda"), "not_on_cpu"),
    (lambda d: meta(d)["sizes"][0].update(as_int=3), "payload_size"),
    (lambda d: meta(d)["sizes"][0].update(as_int=1), "payload_size"),
    (lambda d: meta(d)["sizes"][0].update(as_int=-1), "payload_size"),
    (lambda d: meta(d)["sizes"][0].update(as_int=2**62), "payload_size"),
    (lambda d: meta(d)["sizes"][0].update(as_int=2**39), "payload_size"),
    (lambda d: meta(d)["sizes"][0].update(as_int=True), "malformed"),
    (lambda d: meta(d)["sizes"][0].update(as_int=2.0), "malformed"),
    (lambda d: meta(d)["sizes"].append({"as_int": 1}), "malformed"),
    (lambda d: meta(d).update(sizes=[{"as_int": 1}] * 99, strides=[{"as_int": 1}] * 99), "malformed"),
    (lambda d: meta(d)["strides"][0].update(as_int=-3), "payload_size"),
    (lambda d: meta(d)["strides"][0].update(as_int=2**50), "payload_size"),
    (lambda d: meta(d)["storage_offset"].update(as_int=1), "payload_size"),
    (
        lambda d: meta(d).update(
            sizes=[{"as_int": 2**39}, {"as_int": 6}], strides=[{"as_int": 0}, {"as_int": 1}]
        ),
        "payload_size",
    ),
]


@pytest.mark.parametrize("place", range(len(WEIGHT_CHANGES)))
def test_payloads_that_lie_are_rejected(place: int, good: Entries, tmp_path: Path) -> None:
    change, code = WEIGHT_CHANGES[place]
    assert rejected(edit_json(good, WEIGHTS, change), tmp_path).code == code


@pytest.mark.parametrize("size", [0, 8, 23, 25, 4096])
def test_payloads_too_small_or_too_large_are_rejected(size: int, good: Entries, tmp_path: Path) -> None:
    found = rejected(good | {"model/data/weights/weight_0": bytes(size)}, tmp_path)
    assert found.code == "payload_size"
    assert "weight_0" in found.detail
    assert "24" in found.detail


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Tensor",
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.add.out",
        "torch.ops.aten.to.dtype_out",
        "torch.ops.aten.nonzero.default",
        "torch.ops.mylib.evil.default",
        "torch.ops.aten.linear",
        "torch.ops.load_library",
        "torch.ops.higher_order.while_loop",
        "torch.load",
        "os.system",
        "builtins.eval",
        "_operator.attrgetter",
        "_operator.setitem",
        "math.__loader__",
        "torch.ops.aten.linear.default\n",
        "torch.ops.aten.__class__.__init__",
        "",
    ],
)
def test_unknown_operators_are_named(target: str, good: Entries, tmp_path: Path) -> None:
    found = rejected(change_model(good, lambda d: graph(d)["nodes"][-1].update(target=target)), tmp_path)
    assert found.code == "unknown_operator"
    assert ascii(target) in found.detail
    assert found.hint


def test_every_allowed_operator_exists() -> None:
    assert [name for name in sorted(operators.ATEN) if not hasattr(torch.ops.aten, name)] == []


HOSTILE = ["x;y", "import os", "__import__('os')", "a b", "ü", "lambda", "", "x" * 201, "x\n", "1x", "self.x"]


@pytest.mark.parametrize("name", [*HOSTILE, "self", "torch", "pytree"])
def test_hostile_input_names_are_refused(name: str, good: Entries, tmp_path: Path) -> None:
    def rename(document: Any) -> None:
        specs(document)[-1]["user_input"]["arg"]["as_tensor"]["name"] = name
        graph(document)["tensor_values"][name] = graph(document)["tensor_values"]["x"]

    assert rejected(change_model(good, rename), tmp_path).code == "hostile_name"


@pytest.mark.parametrize(
    "path",
    ["__class__.x", "a.__dict__", "fc..weight", ".weight", "fc.weight;x", "fc.import", "fc['x']", "a." * 600],
)
def test_hostile_parameter_names_are_refused(path: str, good: Entries, tmp_path: Path) -> None:
    entries = change_model(good, lambda d: specs(d)[0]["parameter"].update(parameter_name=path))
    assert rejected(entries, tmp_path).code == "hostile_name"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_value_names_are_refused(name: str, good: Entries, tmp_path: Path) -> None:
    entries = change_model(
        good, lambda d: graph(d)["nodes"][0].update(outputs=[{"as_tensor": {"name": name}}])
    )
    assert rejected(entries, tmp_path).code == "hostile_name"


def add(document: Any) -> Any:
    return graph(document)["nodes"][-1]


def sizes(document: Any) -> Any:
    return graph(document)["tensor_values"]["x"]["sizes"]


MODEL_CHANGES: list[tuple[Callable[[Any], object], str]] = [
    (lambda d: d["schema_version"].update(major=6), "unsupported_version"),
    (lambda d: d.pop("schema_version"), "malformed"),
    (lambda d: d.pop("graph_module"), "malformed"),
    (lambda d: graph(d).update(nodes={}), "malformed"),
    (lambda d: graph(d).update(nodes=[None]), "malformed"),
    (lambda d: graph(d)["nodes"].pop(0), "unknown_value"),
    (lambda d: graph(d)["nodes"].reverse(), "unknown_value"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_tensor": {"name": "nothing"}}), "unknown_value"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_tensor": "x"}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_tensor": {"name": "x"}, "as_int": 1}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_custom_obj": {"name": "x"}}), "unsupported_argument"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_operator": "os.system"}), "unsupported_argument"),
    (
        lambda d: add(d)["inputs"][0].update(arg={"as_graph": {"name": "g", "graph": {}}}),
        "unsupported_argument",
    ),
    (lambda d: add(d)["inputs"][0].update(arg={"as_int": 2**63}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_int": "1"}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_float": "1e9"}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_string": "x" * 201}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_memory_format": 9}), "malformed"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_device": {"type": "cuda"}}), "not_on_cpu"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_layout": 1}), "unsupported_layout"),
    (lambda d: add(d)["inputs"][0].update(arg={"as_scalar_type": 9}), "unsupported_dtype"),
    (lambda d: add(d)["inputs"][0].update(kind=2, name="__class__; x"), "hostile_name"),
    (lambda d: add(d).update(outputs=[{"as_tensor": {"name": "x"}}]), "malformed"),
    (lambda d: add(d).update(outputs=[{"as_graph": {}}]), "unsupported_argument"),
    (lambda d: specs(d).clear(), "unsupported_input"),
    (lambda d: specs(d).append({"custom_obj": {}}), "unsupported_input"),
    (lambda d: specs(d).append({"token": {}}), "unsupported_input"),
    (lambda d: specs(d).append(specs(d)[0]), "malformed"),
    (lambda d: specs(d)[-1]["user_input"].update(arg={"as_int": 3}), "unsupported_input"),
    (lambda d: specs(d)[0]["parameter"].update(parameter_name="fc.none"), "malformed"),
    (lambda d: specs(d, "output").clear(), "unsupported_output"),
    (lambda d: specs(d, "output")[0]["user_output"].update(arg={"as_int": 3}), "unsupported_output"),
    (
        lambda d: specs(d, "output")[0]["user_output"].update(arg={"as_tensor": {"name": "q"}}),
        "unknown_value",
    ),
    (
        lambda d: specs(d, "output").append(
            {"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "shift"}}
        ),
        "mutates_state",
    ),
    (lambda d: sizes(d)[1].update(as_int=2**62), "payload_size"),
    (lambda d: sizes(d)[1].update(as_int=-1), "payload_size"),
    (lambda d: sizes(d)[1].update(as_int=2**39), "input_too_large"),
    (lambda d: d["range_constraints"].clear(), "malformed"),
    (lambda d: [r.update(min_val=5, max_val=2) for r in d["range_constraints"].values()], "malformed"),
    (lambda d: [r.update(min_val=2**50, max_val=None) for r in d["range_constraints"].values()], "malformed"),
    (lambda d: [r.update(min_val=2**30) for r in d["range_constraints"].values()], "malformed"),
    (lambda d: [r.update(min_val="1") for r in d["range_constraints"].values()], "malformed"),
    (lambda d: graph(d)["tensor_values"].clear(), "malformed"),
]


@pytest.mark.parametrize("place", range(len(MODEL_CHANGES)))
def test_programs_that_lie_are_rejected(place: int, good: Entries, tmp_path: Path) -> None:
    change, code = MODEL_CHANGES[place]
    assert rejected(change_model(good, change), tmp_path).code == code


EXPRESSIONS = [
    "__import__('os').system('true')",
    "Symbol('s0').__class__",
    "Mul(Integer(0), Symbol('s0'))",
    "Mul(Integer(2), Mul(Integer(2), Symbol('s0')))",
    "Mul(Symbol('s0'), Symbol('s1'))",
    "Add(Integer(2), Symbol('s0'))",
    "2*s0+1",
    "-2*s0",
    "Symbol('s0, evil')",
    "Symbol('s0'" + ", positive=True" * 99 + ")",
    "",
    "9" * 500,
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_matched_never_evaluated(expression: str, good: Entries, tmp_path: Path) -> None:
    entries = change_model(good, lambda d: sizes(d)[0]["as_expr"].update(expr_str=expression))
    assert rejected(entries, tmp_path).code == "unsupported_dimension"


def test_pickled_sample_inputs_are_in_every_archive_and_never_loaded(good: Entries, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    sample = {"model/data/sample_inputs/model.pt": pickle.dumps(Canary(canary))}
    assert "model/data/sample_inputs/model.pt" in good
    assert admit(pack(tmp_path / "file", good | sample)).inputs
    assert not canary.exists()


def test_huge_sample_inputs_are_passed_over(good: Entries, tmp_path: Path) -> None:
    path = pack(tmp_path / "large.pt2", good | {"model/data/sample_inputs/model.pt": bytes(64 << 20)})
    tracemalloc.start()
    program = admit(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert program.inputs
    assert peak < 8 << 20
