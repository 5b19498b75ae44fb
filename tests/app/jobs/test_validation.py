"""Which requests a model and its data allow."""

from typing import Any

import pytest

from app.contract.spec import JobSpec, Task
from app.contract.summary import DatasetSummary, ModelSummary
from app.db.tables import Document
from app.errors import Unprocessable
from app.jobs.validation import resolve
from tests.app.tenants import IMAGES, LABELS, MODEL_SUMMARY

MODEL = "mdl_" + "0" * 32


def _array(name: str, dtype: str, *shape: int | str, **more: Any) -> Document:
    return {"name": name, "dtype": dtype, "shape": list(shape)} | more


def _resolve(
    arrays: list[Document] | None = None,
    model: Document | None = None,
    role: str = "train",
    rows: int = 40,
    **body: Any,
) -> JobSpec:
    spec = JobSpec.model_validate({"model": MODEL} | body)
    data = {}
    if arrays is not None:
        data[role] = DatasetSummary.model_validate({"rows": rows, "arrays": arrays})
    return resolve(spec, ModelSummary.model_validate(MODEL_SUMMARY | (model or {})), data)


def _refused(*arguments: Any, **named: Any) -> tuple[str, str | None]:
    with pytest.raises(Unprocessable) as caught:
        _resolve(*arguments, **named)
    problem = caught.value.problem
    assert problem.detail.endswith(".")
    assert problem.hint
    return problem.code, problem.field


TWO_INPUTS = {"inputs": [_array("ids", "int64", "n", 8), _array("mask", "bool", "n", 8)]}
LANGUAGE = {
    "inputs": [_array("ids", "int64", "n", "t")],
    "outputs": [_array("logits", "float32", "n", "t", 100)],
}


def test_train_data_too_small_to_split_is_refused_and_a_small_test_set_is_not() -> None:
    assert _refused([IMAGES, LABELS], rows=9) == ("dataset_too_small", "data.train")
    assert _resolve([IMAGES, LABELS], rows=9, role="test").task is Task.CLASSIFICATION


@pytest.mark.parametrize("task", ["regression", "language-modeling"])
@pytest.mark.parametrize("role", ["train", "test"])
def test_a_mean_of_one_row_has_no_interval(task: str, role: str) -> None:
    assert _refused([IMAGES, LABELS], rows=1, role=role, task=task) == ("dataset_too_small", f"data.{role}")
    assert _resolve([IMAGES, LABELS], rows=1, role="test").task is Task.CLASSIFICATION


SENTENCES = [_array("ids", "int64", 40, 8), _array("target", "int64", 40, 8, minimum=0, maximum=99)]
VALUES = [IMAGES, _array("target", "float32", 40, 10)]


@pytest.mark.parametrize("roles", [(), ("train",), ("test",), ("train", "test")])
@pytest.mark.parametrize(
    ("task", "arrays"),
    [
        ("classification", [IMAGES, LABELS]),
        ("regression", VALUES),
        ("language-modeling", SENTENCES),
        ("none", [IMAGES]),
    ],
)
def test_every_task_takes_whatever_data_there_is(
    task: str, arrays: list[Document], roles: tuple[str, ...]
) -> None:
    model = LANGUAGE if task == "language-modeling" else {}
    data = {role: DatasetSummary.model_validate({"rows": 40, "arrays": arrays}) for role in roles}
    spec = JobSpec.model_validate({"model": MODEL, "task": task})
    summary = ModelSummary.model_validate(MODEL_SUMMARY | model)
    if roles or task == "none":
        assert resolve(spec, summary, data).task == task
    else:
        with pytest.raises(Unprocessable) as caught:
            resolve(spec, summary, data)
        assert (caught.value.problem.code, caught.value.problem.field) == ("data_missing", "data")


def test_a_folder_is_made_of_folders_alone() -> None:
    assert _refused(outputs=["pt2", "huggingface"]) == ("no_folder", "outputs")
    folder = {"folder": {"architecture": "BertModel"}}
    assert _resolve(model=folder, outputs=["huggingface"]).outputs == ["huggingface"]


def test_a_target_in_one_data_set_does_not_serve_the_other() -> None:
    data = {
        role: DatasetSummary.model_validate({"rows": 40, "arrays": arrays})
        for role, arrays in {"train": [IMAGES, LABELS], "test": [IMAGES]}.items()
    }
    spec = JobSpec.model_validate({"model": MODEL})
    with pytest.raises(Unprocessable) as caught:
        resolve(spec, ModelSummary.model_validate(MODEL_SUMMARY), data)
    assert (caught.value.problem.code, caught.value.problem.field) == ("target_missing", "data.test")


def test_without_data_there_is_no_task() -> None:
    assert _resolve().task is Task.NONE


def test_labels_make_a_classification() -> None:
    assert _resolve([IMAGES, LABELS]).task is Task.CLASSIFICATION


def test_images_alone_have_no_task() -> None:
    assert _resolve([IMAGES]).task is Task.NONE


def test_an_explicit_none_leaves_the_target_alone() -> None:
    labels = LABELS | {"maximum": 99}
    assert _resolve([IMAGES, labels], task="none").task is Task.NONE


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_only_input_takes_any_name_and_any_float(dtype: str) -> None:
    assert _resolve([_array("pictures", dtype, 40, 1, 28, 28), LABELS]).task is Task.CLASSIFICATION


@pytest.mark.parametrize("role", ["train", "test"])
@pytest.mark.parametrize(
    ("array", "code"),
    [
        (_array("x", "int64", 40, 1, 28, 28), "wrong_dtype"),
        (_array("x", "uint8", 40, 1, 28, 28), "wrong_dtype"),
        (_array("x", "bool", 40, 1, 28, 28), "wrong_dtype"),
        (_array("x", "complex64", 40, 1, 28, 28), "wrong_dtype"),
        (_array("x", "float32", 40, 3, 28, 28), "wrong_shape"),
        (_array("x", "float32", 40, 784), "wrong_shape"),
        (_array("x", "float32", 40), "wrong_shape"),
    ],
)
def test_an_array_that_does_not_fit_names_the_data_set(role: str, array: Document, code: str) -> None:
    assert _refused([array, LABELS], role=role) == (code, f"data.{role}")


def test_several_inputs_are_matched_by_name() -> None:
    arrays = [_array("mask", "bool", 40, 8), _array("ids", "int32", 40, 8)]
    assert _resolve(arrays, TWO_INPUTS).task is Task.NONE


def test_a_length_that_is_no_such_multiple_is_refused() -> None:
    model = {
        "inputs": [_array("x", "float32", "n", 3, "32*h", "w")],
        "outputs": [_array("y", "float32", "n", 2)],
    }
    assert _resolve([_array("x", "float32", 40, 3, 64, 65)], model).task is Task.NONE
    assert _refused([_array("x", "float32", 40, 3, 65, 64)], model) == ("wrong_shape", "data.train")


STATEFUL = {
    "inputs": [
        _array("x", "float32", "n", 8),
        _array("states", "float32", 2, "n", 16, row_axis=1),
        _array("rate", "int64", row_axis=None),
    ]
}


def _stream(*states: int, least: float = 8, most: float = 8) -> list[Document]:
    rate = _array("rate", "int64", 40, minimum=least, maximum=most)
    return [_array("x", "float32", 40, 8), _array("states", "float32", *states), rate]


def test_rows_of_states_come_first_in_the_data_and_one_value_serves_all_rows() -> None:
    assert _resolve(_stream(40, 2, 16), STATEFUL).task is Task.NONE
    assert _refused(_stream(2, 40, 16), STATEFUL) == ("wrong_shape", "data.train")
    assert _refused(_stream(40, 2, 16, most=16), STATEFUL) == ("rows_differ", "data.train")


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ([_array("ids", "int64", 40, 8)], "input_missing"),
        ([_array("ids", "int64", 40, 8), _array("masc", "bool", 40, 8)], "unknown_input"),
        ([_array("ids", "int64", 40, 8), _array("mask", "int64", 40, 8)], "wrong_dtype"),
        ([LABELS], "input_missing"),
    ],
)
def test_a_wrong_input_name_is_refused(arrays: list[Document], code: str) -> None:
    assert _refused(arrays, TWO_INPUTS) == (code, "data.train")


def test_inputs_and_targets_share_the_lengths_that_vary() -> None:
    model = LANGUAGE | {"inputs": [_array("ids", "int64", "n", "t"), _array("mask", "int64", "n", "t")]}
    ids, target = _array("ids", "int64", 40, 8), _array("target", "int64", 40, 8, minimum=0, maximum=99)
    arrays = [ids, _array("mask", "int64", 40, 8), target]
    assert _resolve(arrays, model, task="language-modeling").task is Task.LANGUAGE_MODELING
    arrays[1]["shape"] = [40, 9]
    assert _refused(arrays, model, task="language-modeling") == ("wrong_shape", "data.train")
    arrays[1]["shape"], target["shape"] = [40, 8], [40, 9]
    assert _refused(arrays, model, task="language-modeling") == ("wrong_target", "data.train")


@pytest.mark.parametrize(("least", "most"), [(-1, 99), (0, 100)])
def test_indices_outside_of_the_table_are_refused(least: int, most: int) -> None:
    model = {"inputs": [_array("ids", "int64", "n", 8, minimum=0, maximum=99)]}
    fitting = _array("tokens", "int32", 40, 8, minimum=0, maximum=99)
    assert _resolve([fitting], model).task is Task.NONE
    outside = fitting | {"minimum": least, "maximum": most}
    assert _refused([outside], model) == ("input_out_of_range", "data.train")


def test_an_array_too_many_is_refused() -> None:
    assert _refused([IMAGES, LABELS, _array("y", "int64", 40)]) == ("unknown_input", "data.train")


@pytest.mark.parametrize(
    "labels",
    [LABELS | {"maximum": 10}, LABELS | {"minimum": -1}, LABELS | {"minimum": -100}],
)
def test_labels_outside_of_the_classes_are_refused(labels: Document) -> None:
    assert _refused([IMAGES, labels]) == ("labels_out_of_range", "data.train")


def test_ignored_labels_do_not_count_towards_the_range() -> None:
    assert _resolve([IMAGES, LABELS | {"ignored": 39}]).task is Task.CLASSIFICATION
    nothing_else = LABELS | {"minimum": None, "maximum": None, "ignored": 40}
    assert _refused([IMAGES, nothing_else]) == ("labels_ignored", "data.train")


def test_labels_must_be_whole_numbers() -> None:
    floats = _array("target", "float32", 40)
    assert _refused([IMAGES, floats], task="classification") == ("wrong_target", "data.train")


def test_one_label_per_row() -> None:
    pairs = _array("target", "int64", 40, 2)
    assert _refused([IMAGES, pairs], task="classification") == ("wrong_target", "data.train")


@pytest.mark.parametrize("task", ["classification", "regression", "language-modeling"])
def test_a_task_needs_its_target(task: str) -> None:
    assert _refused([IMAGES], task=task) == ("target_missing", "data.train")
    assert _refused(task=task) == ("data_missing", "data")


@pytest.mark.parametrize("shape", [("n",), ("n", 1), ("n", 10, 28, 28)])
@pytest.mark.parametrize("task", ["classification", "language-modeling"])
def test_a_model_without_classes_cannot_classify(task: str, shape: tuple[int | str, ...]) -> None:
    outputs = {"outputs": [_array("map", "float32", *shape)]}
    assert _refused([IMAGES, LABELS], outputs, task=task) == ("wrong_task", "task")


def test_regression_takes_targets_like_the_output() -> None:
    right, wrong = _array("target", "float64", 40, 10), _array("target", "float32", 40, 9)
    assert _resolve([IMAGES, right], task="regression").task is Task.REGRESSION
    assert _refused([IMAGES, wrong], task="regression") == ("wrong_target", "data.train")
    assert _refused([IMAGES, LABELS], task="regression") == ("wrong_target", "data.train")


def test_language_modeling_takes_a_token_per_place() -> None:
    arrays = [_array("ids", "int64", 40, 8), _array("target", "int64", 40, 8, minimum=0, maximum=99)]
    assert _resolve(arrays, LANGUAGE, task="language-modeling").task is Task.LANGUAGE_MODELING
    arrays[1]["maximum"] = 100
    assert _refused(arrays, LANGUAGE, task="language-modeling") == ("labels_out_of_range", "data.train")


def test_the_test_set_must_not_be_the_train_set() -> None:
    same = "dst_" + "0" * 32
    assert _refused([IMAGES], data={"train": same, "test": same}) == ("test_is_train", "data.test")


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
    assert len(_resolve(layers=rules).layers) == len(rules)


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
    assert _refused(layers=rules) == (code, field)


def test_an_impossible_rule_names_the_layer() -> None:
    with pytest.raises(Unprocessable) as caught:
        _resolve(layers=[{"match": "*", "method": "svd"}])
    assert caught.value.problem.layer == "conv1"


def test_a_model_without_layers_has_nothing_to_compress() -> None:
    assert _refused(None, {"layers": MODEL_SUMMARY["layers"][2:]}) == ("nothing_to_compress", "model")


def test_methods_that_no_layer_takes_leave_nothing_to_compress() -> None:
    assert _refused(None, {"layers": MODEL_SUMMARY["layers"][:1]}, methods=["svd"]) == (
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
    assert _resolve(model=ATTENTION, layers=[rule]).joint
    assert _resolve(model=ATTENTION, methods=["joint_svd"]).joint
    assert not _resolve(model=ATTENTION, layers=[{"match": "*", "method": "svd"}]).joint
    both = {"model": ATTENTION, "methods": ["svd", "joint_svd"]}
    assert _refused(layers=[{"match": "q", "rank": 4}], **both) == ("no_such_layer", "layers.0.match")
    assert _refused(layers=[{"match": "q+k", "rank": 9}], **both) == ("rank_out_of_range", "layers.0.rank")
    assert _refused(layers=[{"match": "q+k", "rank": 4}], model=ATTENTION) == (
        "no_such_layer",
        "layers.0.match",
    )


@pytest.mark.parametrize(
    ("arrays", "folds", "refusal"),
    [
        (None, 4, ("too_few_rows", "data.train")),
        ([IMAGES, LABELS], 12, ("too_few_rows", "ranks.folds")),
    ],
)
def test_folds_need_train_rows(arrays: list[Document] | None, folds: int, refusal: tuple[str, str]) -> None:
    ranks = {"selection": "cross_validation", "folds": folds}
    assert _refused(arrays, rows=11, ranks=ranks) == refusal
    assert _resolve([IMAGES, LABELS], rows=40, ranks=ranks).ranks.selection == "cross_validation"


@pytest.mark.parametrize(
    "ranks", [{"selection": "energy"}, {"selection": "vbmf"}, {"selection": "fraction", "fraction": 0.4}]
)
def test_several_budgets_for_ranks_that_are_blind_to_them_are_refused(ranks: Document) -> None:
    keeps = {"keep": [0.5, 0.3]}
    assert _refused(ranks=ranks, target=keeps) == ("keeps_ignored", "target.keep")
    assert _resolve(ranks={"selection": "fraction"}, target=keeps).target.keeps == [0.5, 0.3]


def test_an_int8_form_is_of_an_onnx_file() -> None:
    int8 = "dynamic-int8"
    assert _refused(quantize=int8, outputs=["pt2"]) == ("quantize_without_onnx", "quantize")
    assert _resolve(quantize=int8, outputs=["onnx"]).quantize == int8
    assert _resolve(quantize=int8).quantize == int8
    assert _resolve(outputs=["pt2"]).quantize is None


@pytest.mark.parametrize(
    ("arrays", "body", "refusal"),
    [
        ([IMAGES], {}, ("no_metric", "target.max_drop")),
        ([IMAGES, LABELS], {"role": "test"}, ("data_missing", "data.train")),
        (
            [IMAGES, LABELS],
            {"ranks": {"selection": "energy"}},
            ("max_drop_ignored", "ranks.selection"),
        ),
    ],
)
def test_a_bound_on_the_fall_needs_a_metric_rows_and_a_budget(
    arrays: list[Document], body: Document, refusal: tuple[str, str]
) -> None:
    assert _refused(arrays, target={"max_drop": 0.01}, **body) == refusal


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"role": "test"}, ("data_missing", "data.train")),
        ({"finetune": {"stages": 3, "epochs": 2}}, ("too_few_epochs", "finetune.epochs")),
        ({"ranks": {"selection": "energy"}}, ("stages_ignored", "finetune.stages")),
        ({"ranks": {"selection": "fraction", "fraction": 0.5}}, ("stages_ignored", "finetune.stages")),
        ({"target": {"max_drop": 0.01}}, ("stages_ignored", "finetune.stages")),
        ({"target": {"min_agreement": 0.9}}, ("stages_ignored", "finetune.stages")),
    ],
)
def test_stages_need_a_budget_and_training_for_each(body: Document, refusal: tuple[str, str]) -> None:
    assert _refused([IMAGES, LABELS], **{"finetune": {"stages": 2}, **body}) == refusal
    assert _resolve([IMAGES, LABELS], finetune={"stages": 2}).finetune.stages == 2
    assert _resolve([IMAGES, LABELS], **{**body, "finetune": {"stages": 1}}).finetune.stages == 1


def test_half_is_kept_where_nothing_bounds_the_loss() -> None:
    assert _resolve([IMAGES, LABELS]).target.keep == 0.5
    assert _resolve([IMAGES, LABELS], target={"max_drop": 0.01}).target.keep is None


def test_a_budget_of_latency_is_for_ranks_that_follow_a_budget() -> None:
    refusal = ("latency_ignored", "target.of")
    assert _refused(target={"of": "latency"}, ranks={"selection": "fraction"}) == refusal
    assert _resolve(target={"of": "latency"}).target.of == "latency"
