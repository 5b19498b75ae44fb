"""Which rules for layers a model allows."""

from typing import Any

import pytest

from app.db.tables import Document
from app.errors import Unprocessable
from tests.app.jobs.requests import refused, resolved
from tests.app.tenants import MODEL_SUMMARY


@pytest.mark.parametrize(
    "rules",
    [
        [{"match": "conv1", "method": "tucker", "rank": [64, 32]}],
        [{"match": "conv1", "method": "tucker", "rank": 32}],
        [{"match": "conv*", "rank": [1]}],
        [{"match": "fc", "method": "svd", "rank": 10}],
        [{"match": "fc", "rank": [10]}],
        [{"match": "norm", "method": "keep"}, {"match": "conv1", "method": "keep"}],
        [{"match": "fc", "method": "keep"}, {"match": "*1", "method": "tucker"}],
        [{"match": "fc", "method": "keep"}, {"match": "fc", "method": "tucker", "rank": 999}],
    ],
)
def test_rules_that_can_be_followed_pass(rules: list[Document]) -> None:
    assert len(resolved(layers=rules).layers) == len(rules)


@pytest.mark.parametrize(
    ("rules", "code", "field"),
    [
        ([{"match": "layer9", "method": "svd"}], "no_such_layer", "layers.0.match"),
        ([{"match": "fc", "rank": 1}, {"match": "FC", "rank": 1}], "no_such_layer", "layers.1.match"),
        ([{"match": "fc", "method": "tucker"}], "impossible_method", "layers.0.method"),
        ([{"match": "*", "method": "svd"}], "impossible_method", "layers.0.method"),
        ([{"match": "norm", "rank": 1}], "impossible_method", "layers.0.match"),
        ([{"match": "fc", "rank": 11}], "rank_out_of_range", "layers.0.rank"),
        ([{"match": "fc", "rank": [5, 5]}], "rank_out_of_range", "layers.0.rank"),
        ([{"match": "conv1", "rank": 33}], "rank_out_of_range", "layers.0.rank"),
        ([{"match": "conv1", "rank": [65, 1]}], "rank_out_of_range", "layers.0.rank"),
        ([{"match": "conv1", "rank": [1, 33]}], "rank_out_of_range", "layers.0.rank"),
        ([{"match": "*", "method": "keep"}], "nothing_to_compress", "layers"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_followed_names_itself(rules: list[Document], code: str, field: str) -> None:
    assert refused(layers=rules) == (code, field)


def test_an_impossible_rule_names_the_layer() -> None:
    with pytest.raises(Unprocessable) as caught:
        resolved(layers=[{"match": "*", "method": "svd"}])
    assert caught.value.problem.layer == "conv1"


def test_a_model_without_layers_has_nothing_to_compress() -> None:
    assert refused(None, {"layers": MODEL_SUMMARY["layers"][2:]}) == ("nothing_to_compress", "model")


def test_methods_that_no_layer_takes_leave_nothing_to_compress() -> None:
    assert refused(None, {"layers": MODEL_SUMMARY["layers"][:1]}, methods=["svd"]) == (
        "nothing_to_compress",
        "methods",
    )


def _linear(name: str, *methods: str, **more: Any) -> Document:
    sizes = {"kind": "linear", "shape": [8, 8], "parameters": 64, "macs": 64}
    return {"name": name, "methods": methods, "max_rank": {method: [8] for method in methods}} | sizes | more


ATTENTION = {
    "layers": [_linear("q", "svd"), _linear("k", "svd"), _linear("head", "svd")],
    "pairs": [_linear("q+k", "joint_svd", members=("q", "k"))],
}


def test_a_pair_stands_for_its_members_where_joint_svd_is_asked_for() -> None:
    rule = {"match": "q+k", "method": "joint_svd", "rank": 4}
    assert resolved(model=ATTENTION, layers=[rule]).joint
    assert resolved(model=ATTENTION, methods=["joint_svd"]).joint
    assert not resolved(model=ATTENTION, layers=[{"match": "*", "method": "svd"}]).joint
    both = {"model": ATTENTION, "methods": ["svd", "joint_svd"]}
    assert refused(layers=[{"match": "q", "rank": 4}], **both) == ("no_such_layer", "layers.0.match")
    assert refused(layers=[{"match": "q+k", "rank": 9}], **both) == ("rank_out_of_range", "layers.0.rank")
    assert refused(layers=[{"match": "q+k", "rank": 4}], model=ATTENTION) == (
        "no_such_layer",
        "layers.0.match",
    )
