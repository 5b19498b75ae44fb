"""Which requests a model and its data allow."""

import pytest

from app.contract.spec import JobSpec, Task
from app.contract.summary import DatasetSummary, ModelSummary
from app.db.tables import Document
from app.errors import Unprocessable
from app.jobs.validation import resolve
from tests.app.jobs.requests import MODEL, array, refused, resolved
from tests.app.tenants import IMAGES, LABELS, MODEL_SUMMARY

TWO_INPUTS = {"inputs": [array("ids", "int64", "n", 8), array("mask", "bool", "n", 8)]}
LANGUAGE = {
    "inputs": [array("ids", "int64", "n", "t")],
    "outputs": [array("logits", "float32", "n", "t", 100)],
}


def test_train_data_too_small_to_split_is_refused_and_a_small_test_set_is_not() -> None:
    assert refused([IMAGES, LABELS], rows=9) == ("dataset_too_small", "data.train")
    assert resolved([IMAGES, LABELS], rows=9, role="test").task is Task.CLASSIFICATION


@pytest.mark.parametrize("task", ["regression", "language-modeling"])
@pytest.mark.parametrize("role", ["train", "test"])
def test_a_mean_of_one_row_has_no_interval(task: str, role: str) -> None:
    assert refused([IMAGES, LABELS], rows=1, role=role, task=task) == ("dataset_too_small", f"data.{role}")
    assert resolved([IMAGES, LABELS], rows=1, role="test").task is Task.CLASSIFICATION


SENTENCES = [array("ids", "int64", 40, 8), array("target", "int64", 40, 8, minimum=0, maximum=99)]
VALUES = [IMAGES, array("target", "float32", 40, 10)]


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
    assert refused(outputs=["pt2", "huggingface"]) == ("no_folder", "outputs")
    folder = {"folder": {"architecture": "BertModel"}}
    assert resolved(model=folder, outputs=["huggingface"]).outputs == ["huggingface"]


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
    assert resolved().task is Task.NONE


def test_labels_make_a_classification() -> None:
    assert resolved([IMAGES, LABELS]).task is Task.CLASSIFICATION


def test_images_alone_have_no_task() -> None:
    assert resolved([IMAGES]).task is Task.NONE


def test_an_explicit_none_leaves_the_target_alone() -> None:
    labels = LABELS | {"maximum": 99}
    assert resolved([IMAGES, labels], task="none").task is Task.NONE


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_only_input_takes_any_name_and_any_float(dtype: str) -> None:
    assert resolved([array("pictures", dtype, 40, 1, 28, 28), LABELS]).task is Task.CLASSIFICATION


@pytest.mark.parametrize("role", ["train", "test"])
@pytest.mark.parametrize(
    ("array", "code"),
    [
        (array("x", "int64", 40, 1, 28, 28), "wrong_dtype"),
        (array("x", "uint8", 40, 1, 28, 28), "wrong_dtype"),
        (array("x", "bool", 40, 1, 28, 28), "wrong_dtype"),
        (array("x", "complex64", 40, 1, 28, 28), "wrong_dtype"),
        (array("x", "float32", 40, 3, 28, 28), "wrong_shape"),
        (array("x", "float32", 40, 784), "wrong_shape"),
        (array("x", "float32", 40), "wrong_shape"),
    ],
)
def test_an_array_that_does_not_fit_names_the_data_set(role: str, array: Document, code: str) -> None:
    assert refused([array, LABELS], role=role) == (code, f"data.{role}")


def test_several_inputs_are_matched_by_name() -> None:
    arrays = [array("mask", "bool", 40, 8), array("ids", "int32", 40, 8)]
    assert resolved(arrays, TWO_INPUTS).task is Task.NONE


def test_a_length_that_is_no_such_multiple_is_refused() -> None:
    model = {
        "inputs": [array("x", "float32", "n", 3, "32*h", "w")],
        "outputs": [array("y", "float32", "n", 2)],
    }
    assert resolved([array("x", "float32", 40, 3, 64, 65)], model).task is Task.NONE
    assert refused([array("x", "float32", 40, 3, 65, 64)], model) == ("wrong_shape", "data.train")


STATEFUL = {
    "inputs": [
        array("x", "float32", "n", 8),
        array("states", "float32", 2, "n", 16, row_axis=1),
        array("rate", "int64", row_axis=None),
    ]
}


def _stream(*states: int, least: float = 8, most: float = 8) -> list[Document]:
    rate = array("rate", "int64", 40, minimum=least, maximum=most)
    return [array("x", "float32", 40, 8), array("states", "float32", *states), rate]


def test_rows_of_states_come_first_in_the_data_and_one_value_serves_all_rows() -> None:
    assert resolved(_stream(40, 2, 16), STATEFUL).task is Task.NONE
    assert refused(_stream(2, 40, 16), STATEFUL) == ("wrong_shape", "data.train")
    assert refused(_stream(40, 2, 16, most=16), STATEFUL) == ("rows_differ", "data.train")


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ([array("ids", "int64", 40, 8)], "input_missing"),
        ([array("ids", "int64", 40, 8), array("masc", "bool", 40, 8)], "unknown_input"),
        ([array("ids", "int64", 40, 8), array("mask", "int64", 40, 8)], "wrong_dtype"),
        ([LABELS], "input_missing"),
    ],
)
def test_a_wrong_input_name_is_refused(arrays: list[Document], code: str) -> None:
    assert refused(arrays, TWO_INPUTS) == (code, "data.train")


def test_inputs_and_targets_share_the_lengths_that_vary() -> None:
    model = LANGUAGE | {"inputs": [array("ids", "int64", "n", "t"), array("mask", "int64", "n", "t")]}
    ids, target = array("ids", "int64", 40, 8), array("target", "int64", 40, 8, minimum=0, maximum=99)
    arrays = [ids, array("mask", "int64", 40, 8), target]
    assert resolved(arrays, model, task="language-modeling").task is Task.LANGUAGE_MODELING
    arrays[1]["shape"] = [40, 9]
    assert refused(arrays, model, task="language-modeling") == ("wrong_shape", "data.train")
    arrays[1]["shape"], target["shape"] = [40, 8], [40, 9]
    assert refused(arrays, model, task="language-modeling") == ("wrong_target", "data.train")


@pytest.mark.parametrize(("least", "most"), [(-1, 99), (0, 100)])
def test_indices_outside_of_the_table_are_refused(least: int, most: int) -> None:
    model = {"inputs": [array("ids", "int64", "n", 8, minimum=0, maximum=99)]}
    fitting = array("tokens", "int32", 40, 8, minimum=0, maximum=99)
    assert resolved([fitting], model).task is Task.NONE
    outside = fitting | {"minimum": least, "maximum": most}
    assert refused([outside], model) == ("input_out_of_range", "data.train")


def test_an_array_too_many_is_refused() -> None:
    assert refused([IMAGES, LABELS, array("y", "int64", 40)]) == ("unknown_input", "data.train")


@pytest.mark.parametrize(
    "labels",
    [LABELS | {"maximum": 10}, LABELS | {"minimum": -1}, LABELS | {"minimum": -100}],
)
def test_labels_outside_of_the_classes_are_refused(labels: Document) -> None:
    assert refused([IMAGES, labels]) == ("labels_out_of_range", "data.train")


def test_ignored_labels_do_not_count_towards_the_range() -> None:
    assert resolved([IMAGES, LABELS | {"ignored": 39}]).task is Task.CLASSIFICATION
    nothing_else = LABELS | {"minimum": None, "maximum": None, "ignored": 40}
    assert refused([IMAGES, nothing_else]) == ("labels_ignored", "data.train")


def test_labels_must_be_whole_numbers() -> None:
    floats = array("target", "float32", 40)
    assert refused([IMAGES, floats], task="classification") == ("wrong_target", "data.train")


def test_one_label_per_row() -> None:
    pairs = array("target", "int64", 40, 2)
    assert refused([IMAGES, pairs], task="classification") == ("wrong_target", "data.train")


@pytest.mark.parametrize("task", ["classification", "regression", "language-modeling"])
def test_a_task_needs_its_target(task: str) -> None:
    assert refused([IMAGES], task=task) == ("target_missing", "data.train")
    assert refused(task=task) == ("data_missing", "data")


@pytest.mark.parametrize("shape", [("n",), ("n", 1), ("n", 10, 28, 28)])
@pytest.mark.parametrize("task", ["classification", "language-modeling"])
def test_a_model_without_classes_cannot_classify(task: str, shape: tuple[int | str, ...]) -> None:
    outputs = {"outputs": [array("map", "float32", *shape)]}
    assert refused([IMAGES, LABELS], outputs, task=task) == ("wrong_task", "task")


def test_regression_takes_targets_like_the_output() -> None:
    right, wrong = array("target", "float64", 40, 10), array("target", "float32", 40, 9)
    assert resolved([IMAGES, right], task="regression").task is Task.REGRESSION
    assert refused([IMAGES, wrong], task="regression") == ("wrong_target", "data.train")
    assert refused([IMAGES, LABELS], task="regression") == ("wrong_target", "data.train")


def test_language_modeling_takes_a_token_per_place() -> None:
    arrays = [array("ids", "int64", 40, 8), array("target", "int64", 40, 8, minimum=0, maximum=99)]
    assert resolved(arrays, LANGUAGE, task="language-modeling").task is Task.LANGUAGE_MODELING
    arrays[1]["maximum"] = 100
    assert refused(arrays, LANGUAGE, task="language-modeling") == ("labels_out_of_range", "data.train")


def test_the_test_set_must_not_be_the_train_set() -> None:
    same = "dst_" + "0" * 32
    assert refused([IMAGES], data={"train": same, "test": same}) == ("test_is_train", "data.test")


@pytest.mark.parametrize(
    ("arrays", "folds", "refusal"),
    [
        (None, 4, ("too_few_rows", "data.train")),
        ([IMAGES, LABELS], 12, ("too_few_rows", "ranks.folds")),
    ],
)
def test_folds_need_train_rows(arrays: list[Document] | None, folds: int, refusal: tuple[str, str]) -> None:
    ranks = {"selection": "cross_validation", "folds": folds}
    assert refused(arrays, rows=11, ranks=ranks) == refusal
    assert resolved([IMAGES, LABELS], rows=40, ranks=ranks).ranks.selection == "cross_validation"


@pytest.mark.parametrize(
    "ranks", [{"selection": "energy"}, {"selection": "vbmf"}, {"selection": "fraction", "fraction": 0.4}]
)
def test_several_budgets_for_ranks_that_are_blind_to_them_are_refused(ranks: Document) -> None:
    keeps = {"keep": [0.5, 0.3]}
    assert refused(ranks=ranks, target=keeps) == ("keeps_ignored", "target.keep")
    assert resolved(ranks={"selection": "fraction"}, target=keeps).target.keeps == [0.5, 0.3]


def test_an_int8_form_is_of_an_onnx_file() -> None:
    int8 = "dynamic-int8"
    assert refused(quantize=int8, outputs=["pt2"]) == ("quantize_without_onnx", "quantize")
    assert resolved(quantize=int8, outputs=["onnx"]).quantize == int8
    assert resolved(quantize=int8).quantize == int8
    assert resolved(outputs=["pt2"]).quantize is None


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
    assert refused(arrays, target={"max_drop": 0.01}, **body) == refusal


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
    assert refused([IMAGES, LABELS], **{"finetune": {"stages": 2}, **body}) == refusal
    assert resolved([IMAGES, LABELS], finetune={"stages": 2}).finetune.stages == 2
    assert resolved([IMAGES, LABELS], **{**body, "finetune": {"stages": 1}}).finetune.stages == 1


def test_half_is_kept_where_nothing_bounds_the_loss() -> None:
    assert resolved([IMAGES, LABELS]).target.keep == 0.5
    assert resolved([IMAGES, LABELS], target={"max_drop": 0.01}).target.keep is None


def test_a_budget_of_latency_is_for_ranks_that_follow_a_budget() -> None:
    refusal = ("latency_ignored", "target.of")
    assert refused(target={"of": "latency"}, ranks={"selection": "fraction"}) == refusal
    assert resolved(target={"of": "latency"}).target.of == "latency"
