"""Forged programs of `.pt2` archives: code in every place that torch evaluates, and loops that are none."""

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.workers.engine.hostile import Entries, edit_json

MODEL = "models/model.json"
WEIGHTS = "model_weights_config.json"


def graph_module(document: Any) -> Any:
    """The graph with its signature."""
    return document["graph_module"]


def graph(document: Any) -> Any:
    """The graph itself."""
    return graph_module(document)["graph"]


def poison_guards(document: Any, code: str) -> None:
    document["guards_code"] = [code]


def poison_verifiers(document: Any, code: str) -> None:
    document["verifiers"] = [code]


def poison_treespec(document: Any, code: str) -> None:
    spec = json.dumps([1, {"type": "enum", "context": {"__enum__": True, "fqn": code}, "children_spec": []}])
    graph_module(document)["module_call_graph"][0]["signature"].update(in_spec=spec, out_spec=code)


def poison_metadata(document: Any, code: str) -> None:
    graph_module(document)["metadata"] = {"custom": code}
    for node in graph(document)["nodes"]:
        node["metadata"] = {"stack_trace": code, "nn_module_stack": code, "custom": code, "torch_fn": code}


def poison_argument_names(document: Any, code: str) -> None:
    graph_module(document)["module_call_graph"][0]["signature"]["forward_arg_names"] = [code]


def poison_expressions(document: Any, code: str) -> None:
    for value in graph(document)["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = code


def poison_inputs(document: Any, code: str) -> None:
    name = f"x=[{code}]"
    graph(document)["tensor_values"][name] = graph(document)["tensor_values"]["input"]
    graph_module(document)["signature"]["input_specs"][-1]["user_input"]["arg"]["as_tensor"]["name"] = name


def poison_parameters(document: Any, code: str) -> None:
    graph_module(document)["signature"]["input_specs"][0]["parameter"]["parameter_name"] = f"w;{code}"


def poison_operators(document: Any, code: str) -> None:
    graph(document)["nodes"][0]["target"] = code


IGNORED = [poison_guards, poison_verifiers, poison_metadata, poison_argument_names]
"""Places that our reader does not look at."""
REFUSED: dict[Callable[[Any, str], None], str] = {
    poison_treespec: "unsupported_input",
    poison_expressions: "unsupported_dimension",
    poison_inputs: "hostile_name",
    poison_parameters: "hostile_name",
    poison_operators: "unknown_operator",
}


def scan_of(document: Any) -> Any:
    """The node of the only scan."""
    (found,) = (node for node in graph(document)["nodes"] if node["target"].endswith(".scan"))
    return found


def body_of(document: Any) -> Any:
    """The graph of its body."""
    return scan_of(document)["inputs"][0]["arg"]["as_graph"]["graph"]


def hide_scan_in_scan(document: Any) -> None:
    body_of(document)["nodes"][0] = scan_of(copy.deepcopy(document))


def claim_pickle(entries: Entries, pickled: bytes, name: str = "0.weight") -> Entries:
    """A weight that says it is stored as a pickle, and is."""
    found: dict[str, str] = {}

    def claim(document: Any) -> None:
        document["config"][name].update(use_pickle=True)
        found["entry"] = document["config"][name]["path_name"]

    changed = edit_json(entries, WEIGHTS, claim)
    return changed | {f"model/data/weights/{found['entry']}": pickled}


def call(target: str, result: str, *arguments: dict[str, Any], kind: str = "as_tensor") -> dict[str, Any]:
    """A node; `kind` is that of its result."""
    name = {"name": result} if kind == "as_tensor" else {"as_name": result}
    return {
        "target": target,
        "inputs": [{"name": "", "arg": argument, "kind": 1} for argument in arguments],
        "outputs": [{kind: name}],
        "metadata": {},
        "is_hop_single_tensor_return": None,
    }


def tensor(name: str) -> dict[str, Any]:
    """A value of the graph as an argument."""
    return {"as_tensor": {"name": name}}
