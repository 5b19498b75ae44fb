"""Attacks on the reader of `.pt2`: eight of ten ways into torch.export.load ran code there."""

import functools
import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.acceptance.hostile import zips
from tests.acceptance.hostile.trap import Trap
from tests.acceptance.hostile.vector import Corpus
from tests.workers.engine import pt2_forgeries as forgeries
from tests.workers.engine.formats.zoo import ZOO
from tests.workers.engine.hostile import Entries, edit_json, packed, unpack
from tests.workers.engine.old_archives import STATES, as_torch_2_5, weights_of
from tests.workers.engine.pt2_forgeries import MODEL, WEIGHTS, call, graph, tensor

CORPUS = Corpus("pt2", "models", "model.pt2")
vector = CORPUS.vector


@functools.cache
def good(case: str = "mlp") -> Entries:
    """The entries of an ordinary archive; the last of them is data."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        ZOO[case].save(path)
        entries = unpack(path)
    return dict(sorted(entries.items(), key=lambda entry: "weight_" in entry[0]))


def _model(change: Callable[[Any], object], case: str = "mlp") -> bytes:
    """An archive whose program was changed."""
    return packed(edit_json(good(case), MODEL, change))


def _weights(change: Callable[[Any], object]) -> bytes:
    """An archive whose table of weights was changed."""
    return packed(edit_json(good(), WEIGHTS, lambda document: change(document["config"]["0.weight"])))


def _with(name: str, data: bytes) -> bytes:
    return packed(good() | {f"model/{name}": data})


zips.add_to(CORPUS, good)
for _poison in (*forgeries.IGNORED, *forgeries.REFUSED):
    CORPUS.add(
        _poison.__name__,
        lambda trap, poison=_poison: _model(lambda document: poison(document, trap.expression)),  # type: ignore[misc]
        *([forgeries.REFUSED[_poison]] if _poison in forgeries.REFUSED else []),
    )


@vector()
def pickled_sample_inputs(trap: Trap) -> bytes:
    return _with("data/sample_inputs/model.pt", trap.pickled)


@vector("pickled_weights")
def pickled_weight(trap: Trap) -> bytes:
    return packed(forgeries.claim_pickle(good(), trap.pickled))


@vector("payload_size")
def pickle_in_place_of_a_weight(trap: Trap) -> bytes:
    return _with("data/weights/weight_0", trap.pickled)


@vector("malformed")
def pickled_program(trap: Trap) -> bytes:
    return _with("models/model.json", trap.pickled)


@vector("malformed")
def pickled_table(trap: Trap) -> bytes:
    return _with("data/weights/model_weights_config.json", trap.pickled)


@vector("unknown_entry")
def pickled_custom_object(trap: Trap) -> bytes:
    return _with("data/constants/custom_obj_0", trap.pickled)


@vector("unknown_entry")
def pickled_opaque_object(trap: Trap) -> bytes:
    return _with("data/constants/opaque_obj_0", trap.pickled)


@vector("unknown_entry")
def pickled_weights_beside_the_plain_ones(trap: Trap) -> bytes:
    return _with("data/weights/model.pt", trap.pickled)


def _old(name: str, data: bytes) -> bytes:
    """An archive as torch 2.5 wrote it, with an entry of its weights changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        program = ZOO["mlp"].save(path)
        entries = as_torch_2_5(unpack(path), program)
    return packed(entries | {STATES: packed(weights_of(entries) | {name: data})})


@vector("pickled_code")
def pickled_weights_of_an_old_release(trap: Trap) -> bytes:
    return _old("archive/data.pkl", trap.pickled)


@vector("not_a_zip")
def nothing_but_a_pickle_as_the_weights_of_an_old_release(trap: Trap) -> bytes:
    return packed({"serialized_exported_program.json": b"{}", STATES: trap.pickled})


@vector("unknown_entry")
def code_beside_the_weights_of_an_old_release(trap: Trap) -> bytes:
    return _old("archive/code/evil.py", trap.pickled)


@vector("unsupported_format")
def nothing_but_a_pickle(trap: Trap) -> bytes:
    return trap.pickled


@vector("native_code")
def compiled_package(trap: Trap) -> bytes:
    return _with("data/aotinductor/model/model.so", trap.library())


@vector("native_code")
def library_among_constants(trap: Trap) -> bytes:
    return _with("data/constants/trap.so", trap.library())


@vector("unsupported_format")
def nothing_but_a_library(trap: Trap) -> bytes:
    return trap.library()


@vector("unknown_entry")
def code_beside_the_model(trap: Trap) -> bytes:
    return _with("code/__init__.py", trap.expression.encode())


@vector("unknown_operator")
def operator_that_reads_files(_: Trap) -> bytes:
    return _model(lambda d: graph(d)["nodes"][-1].update(target="torch.ops.aten.from_file.default"))


@vector("unknown_operator")
def operator_that_runs_programs(trap: Trap) -> bytes:
    node = call("os.system", "linear_9", {"as_string": trap.shell})
    return _model(lambda d: graph(d)["nodes"].insert(0, node))


@vector("malformed")
def length_that_is_no_number(_: Trap) -> bytes:
    return _weights(lambda d: d["tensor_meta"]["sizes"][0].update(as_int=float("nan")))


@vector("payload_size")
def negative_length(_: Trap) -> bytes:
    return _weights(lambda d: d["tensor_meta"]["sizes"][0].update(as_int=-1))


@vector("payload_size")
def length_of_2_to_the_63(_: Trap) -> bytes:
    return _weights(lambda d: d["tensor_meta"]["sizes"][0].update(as_int=2**63))


@vector("payload_size")
def stride_of_2_to_the_63(_: Trap) -> bytes:
    return _weights(lambda d: d["tensor_meta"]["strides"][0].update(as_int=2**63 - 1))


@vector("payload_size")
def offset_outside(_: Trap) -> bytes:
    return _weights(lambda d: d["tensor_meta"]["storage_offset"].update(as_int=1 << 30))


@vector("payload_size")
def a_few_bytes_as_terabytes(_: Trap) -> bytes:
    sizes, strides = [{"as_int": 1 << 39}, {"as_int": 6}], [{"as_int": 0}, {"as_int": 1}]
    return _weights(lambda d: d["tensor_meta"].update(sizes=sizes, strides=strides))


@vector("input_too_large")
def input_of_terabytes(_: Trap) -> bytes:
    return _model(lambda d: graph(d)["tensor_values"]["input"]["sizes"][1].update(as_int=1 << 39))


@vector("unknown_value")
def cycle(_: Trap) -> bytes:
    nodes = [
        call("torch.ops.aten.relu.default", "a", tensor("b")),
        call("torch.ops.aten.relu.default", "b", tensor("a")),
    ]
    return _model(lambda d: graph(d)["nodes"].extend(nodes))


@vector("malformed")
def two_values_of_one_name(_: Trap) -> bytes:
    return _model(
        lambda d: graph(d)["nodes"].append(call("torch.ops.aten.relu.default", "input", tensor("input")))
    )


@vector("too_large", "too_complex")
def million_nodes(_: Trap) -> bytes:
    return _chain(1_000_000)


@vector("too_complex")
def hundred_thousand_nodes(_: Trap) -> bytes:
    return _chain(100_000)


def _chain(length: int) -> bytes:
    """A row of calls, each of the value before it."""
    node = json.dumps(call("torch.ops.aten.relu.default", "v%d", tensor("v%d")))
    nodes = ", ".join(node % (place, place + 1) for place in range(length))
    document = json.loads(good()["model/models/model.json"])
    graph(document)["nodes"] = [call("torch.ops.aten.relu.default", "v0", tensor("input")), "REST"]
    return _with("models/model.json", json.dumps(document).replace('"REST"', nodes).encode())


@vector("too_deep")
def ten_thousand_levels(_: Trap) -> bytes:
    return _with("models/model.json", b'{"graph_module":' * 10_000 + b"0" + b"}" * 10_000)


@vector("malformed")
def arguments_ten_thousand_deep(_: Trap) -> bytes:
    deep = json.dumps(call("torch.ops.aten.relu.default", "a", {"as_tensors": "DEEP"}))
    deep = deep.replace('"DEEP"', "[" * 900 + "]" * 900)
    document = json.dumps(json.loads(good()["model/models/model.json"]))
    return _with("models/model.json", document.replace('"nodes": [', f'"nodes": [{deep}, ', 1).encode())


@vector("malformed")
def number_of_a_million_digits(_: Trap) -> bytes:
    return _with("models/model.json", b'{"schema_version": ' + b"9" * 1_000_000 + b"}")


@vector("too_large")
def program_of_many_megabytes(_: Trap) -> bytes:
    return _with("models/model.json", b'{"a": "' + b" " * (65 << 20) + b'"}')


@vector("unknown_operator")
def scan_in_a_scan(_: Trap) -> bytes:
    return _model(forgeries.hide_scan_in_scan, "scan")


@vector("unsupported_argument", "malformed")
def graph_that_holds_itself(_: Trap) -> bytes:
    return _model(
        lambda d: forgeries.body_of(d)["nodes"][0]["inputs"].append({"arg": {"as_graph": "scan"}}), "scan"
    )


def _arithmetic(*nodes: dict[str, Any]) -> bytes:
    return _model(lambda d: graph(d)["nodes"].extend(nodes))


def _sizes(target: str, result: str, *arguments: dict[str, Any]) -> dict[str, Any]:
    return call(target, result, *arguments, kind="as_sym_int")


@vector("bad_arithmetic")
def power_of_a_power(_: Trap) -> bytes:
    """A number of more digits than there are atoms, by arithmetic that is meant for lengths."""
    return _arithmetic(_sizes("_operator.pow", "a", {"as_int": 1 << 62}, {"as_int": 1 << 62}))


@vector("bad_arithmetic")
def squares_of_squares(_: Trap) -> bytes:
    names = [f"a{place}" for place in range(64)]
    nodes = [_sizes("_operator.mul", "a0", {"as_int": 3}, {"as_int": 3})]
    for before, after in pairwise(names):
        value = {"as_sym_int": {"as_name": before}}
        nodes.append(_sizes("_operator.mul", after, value, value))
    return _arithmetic(*nodes)


@vector("bad_arithmetic")
def list_times_a_billion(_: Trap) -> bytes:
    return _arithmetic(_sizes("_operator.mul", "a", {"as_ints": [1] * 8}, {"as_int": 1 << 30}))


@vector("bad_arithmetic")
def text_of_a_billion_spaces(_: Trap) -> bytes:
    return _arithmetic(_sizes("_operator.mod", "a", {"as_string": "%4000000000d"}, {"as_int": 1}))


@vector("time_limit")
def lengths_multiplied_without_end(_: Trap) -> bytes:
    """A polynomial of a variable length, squared and squared again."""
    size = call("torch.ops.aten.sym_size.int", "a", tensor("input"), {"as_int": 0}, kind="as_sym_int")
    nodes = [size, _sizes("_operator.add", "a0", {"as_sym_int": {"as_name": "a"}}, {"as_int": 1})]
    for place in range(40):
        value = {"as_sym_int": {"as_name": f"a{place}"}}
        nodes += [
            _sizes("_operator.mul", f"b{place}", value, value),
            _sizes("_operator.add", f"a{place + 1}", {"as_sym_int": {"as_name": f"b{place}"}}, {"as_int": 1}),
        ]
    return _arithmetic(*nodes)


@vector()
def result_of_terabytes(_: Trap) -> bytes:
    """Nobody has to make it in order to say how large it would be."""
    node = call("torch.ops.aten.zeros.default", "a", {"as_ints": [1 << 40]})
    return _arithmetic(node)
