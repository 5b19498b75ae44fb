"""Calls that lie about what a program takes and returns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers.engine.admit.pt2_files import admit, change_model, rejected
from tests.workers.engine.hostile import Entries, pack


def call_of(document: Any) -> Any:
    return document["graph_module"]["module_call_graph"][0]["signature"]


LEAF: Any = {"type": None, "context": None, "children_spec": []}


def branch(kind: str, *children: Any, keys: object = None) -> Any:
    return {"type": f"builtins.{kind}", "context": json.dumps(keys), "children_spec": list(children)}


def taking(*positional: Any, **keyword: Any) -> Callable[[Any], None]:
    """A change to a call by these arguments."""
    spec = branch(
        "tuple", branch("tuple", *positional), branch("dict", *keyword.values(), keys=list(keyword))
    )
    return lambda document: call_of(document).update(in_spec=json.dumps([1, spec]))


def deep(depth: int) -> Any:
    return branch("list", deep(depth - 1)) if depth else LEAF


CALL_CHANGES: list[tuple[Callable[[Any], object], str]] = [
    (taking(LEAF, LEAF), "malformed"),
    (taking(), "malformed"),
    (taking(branch("dict", LEAF, keys=["a", "b"])), "malformed"),
    (taking(branch("dict", LEAF, branch("list"), keys=["a", "a"])), "malformed"),
    (taking(branch("dict", LEAF, keys="a")), "malformed"),
    (taking(branch("dict", LEAF, keys=[["a"]])), "malformed"),
    (taking(branch("dict", LEAF, keys=[True])), "malformed"),
    (taking(branch("dict", LEAF, keys=["x'];exit()"])), "hostile_name"),
    (taking(branch("dict", LEAF, keys=["a.b"])), "hostile_name"),
    (taking(**{"exit()": LEAF}), "hostile_name"),
    (taking(**{"lambda": LEAF}), "hostile_name"),
    (taking(self=LEAF), "hostile_name"),
    (taking(branch("list"), x=LEAF), "malformed"),
    (taking(branch("set", LEAF)), "unsupported_input"),
    (
        taking({"type": "collections.namedtuple", "context": "os.system", "children_spec": [LEAF]}),
        "unsupported_input",
    ),
    (taking({"type": 3, "context": None, "children_spec": []}), "unsupported_input"),
    (taking({"type": "builtins.tuple"}), "malformed"),
    (taking(deep(20)), "too_deep"),
    (lambda d: call_of(d).update(in_spec="[1, " + "[" * 100_000), "too_deep"),
    (lambda d: call_of(d).update(in_spec=json.dumps([2, LEAF])), "malformed"),
    (lambda d: call_of(d).update(in_spec=json.dumps([1, LEAF])), "malformed"),
    (lambda d: call_of(d).update(in_spec="eval"), "malformed"),
    (lambda d: call_of(d).update(in_spec=None), "malformed"),
    (lambda d: call_of(d).update(out_spec=json.dumps([1, branch("tuple", LEAF, LEAF)])), "malformed"),
    (lambda d: d["graph_module"].update(module_call_graph=[]), "malformed"),
]


@pytest.mark.parametrize("place", range(len(CALL_CHANGES)))
def test_calls_that_lie_are_rejected(place: int, good: Entries, tmp_path: Path) -> None:
    change, code = CALL_CHANGES[place]
    assert rejected(change_model(good, change), tmp_path).code == code


def test_hostile_argument_names_are_refused_where_they_are_used(good: Entries, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        taking(branch("list", LEAF))(document)
        call_of(document)["forward_arg_names"] = ["x=[exit()]"]

    assert rejected(change_model(good, change), tmp_path).code == "hostile_name"


def test_arguments_without_names_are_numbered(good: Entries, tmp_path: Path) -> None:
    def change(document: Any) -> None:
        taking(branch("list", branch("dict", LEAF, keys=[7])))(document)
        call_of(document).pop("forward_arg_names")

    [spec] = admit(pack(tmp_path / "file", change_model(good, change))).inputs
    assert (spec.name, spec.value) == ("arg_0.0.7", "x")
