"""Whether a job can be done: the request against what inspection found. Pure functions, no I/O."""

import re
from collections.abc import Iterable, Mapping

from app.contract.spec import BudgetRanks, CrossValidationRanks, FractionRanks, JobSpec, Output, Task
from app.contract.summary import ArrayInfo, DatasetSummary, ModelSummary
from app.errors import Unprocessable
from app.jobs.layer_rules import check_layers
from app.jobs.text import check_length, check_text, default_task, is_text

TARGET = "target"
_PRODUCT = re.compile(r"([1-9]\d*)\*\w+")  # an axis whose lengths are multiples: `32*h`
LEAST_TRAIN_ROWS = 10
_CLASSES_HINT = (
    "Labels are whole numbers from 0, and −100 where there is none; the model's output decides how many "
    "classes there are."
)


def resolve(spec: JobSpec, model: ModelSummary, data: Mapping[str, DatasetSummary]) -> JobSpec:
    """The request with its task decided; raises `Unprocessable` naming the field that cannot be.

    `data` holds the data sets by role, `train` and `test`.
    """
    check_layers(spec, model)
    _check_ranks(spec, data)
    _check_outputs(spec, model)
    if spec.data.train is not None and spec.data.train == spec.data.test:
        raise Unprocessable(
            "test_is_train",
            "The test set is the train set, so that the numbers would mean nothing.",
            hint="Name it in `data.train` alone: it is then split, and the report says how.",
            field="data.test",
        )
    check_length(spec, data)
    task = spec.task or _default_task(model, data)
    for role, summary in data.items():
        field = f"data.{role}"
        if not is_text(summary):
            _check_rows(field, task, summary)
            _check_arrays(field, task, model, summary)
            continue
        check_text(field, spec, task, model)
        if task is Task.NONE:  # else a line is no row
            _check_rows(field, task, summary)
    if task is not Task.NONE and not data:
        raise Unprocessable(
            "data_missing",
            f"The task {task} is measured on data, and there is none.",
            hint="Name a data set in `data.test` or `data.train`, or ask for the task `none`.",
            field="data",
        )
    _check_drop(spec, task, data)
    _check_stages(spec, data)
    keeps = spec.target.keeps
    target = spec.target.model_copy(update={"keep": keeps[0]}) if len(keeps) == 1 else spec.target
    return spec.model_copy(update={"task": task, "target": target})


def _check_drop(spec: JobSpec, task: Task, data: Mapping[str, DatasetSummary]) -> None:
    """A bound on the metric's fall needs a metric, rows to see it on besides the test rows, and ranks that
    follow a budget."""
    if spec.target.max_drop is None:
        return
    if task is Task.NONE:
        raise Unprocessable(
            "no_metric",
            "Without a task there is no metric whose fall could be bounded.",
            hint="Name a `task` and labelled data, or give `target.keep` instead.",
            field="target.max_drop",
        )
    if "train" not in data:
        raise Unprocessable(
            "data_missing",
            "How far the metric falls is seen on rows besides the test rows, and there is no train data.",
            hint="Name it in `data.train`; one data set alone is split.",
            field="data.train",
        )
    if not isinstance(spec.ranks, BudgetRanks):
        raise Unprocessable(
            "max_drop_ignored",
            f"The selection {spec.ranks.selection} takes no budget, so that none can be searched for.",
            hint="Ask for the selection `budget`, or give `target.keep` instead.",
            field="ranks.selection",
        )


def _check_stages(spec: JobSpec, data: Mapping[str, DatasetSummary]) -> None:
    """Stages lead to a budget that is known, and each trains."""
    stages, target = spec.finetune.stages, spec.target
    if stages == 1:
        return
    if "train" not in data:
        raise Unprocessable(
            "data_missing",
            "Between stages the network is trained, and there is no train data.",
            hint="Name it in `data.train`, or ask for one stage.",
            field="data.train",
        )
    if spec.finetune.epochs < stages:
        raise Unprocessable(
            "too_few_epochs",
            f"{spec.finetune.epochs} epochs cannot be shared out among {stages} stages.",
            hint="Ask for an epoch for each stage at least, or for fewer stages.",
            field="finetune.epochs",
        )
    if not _budgeted(spec) or target.max_drop is not None or target.min_agreement is not None:
        raise Unprocessable(
            "stages_ignored",
            "Stages lead to `target.keep` step by step; here something else decides what is kept.",
            hint="Ask for the selection `budget` or `fraction` and `target.keep` alone, or for one stage.",
            field="finetune.stages",
        )


def _budgeted(spec: JobSpec) -> bool:
    """Whether the ranks follow `target.keep`."""
    ranks = spec.ranks
    return isinstance(ranks, BudgetRanks) or (isinstance(ranks, FractionRanks) and not ranks.fraction)


def _check_ranks(spec: JobSpec, data: Mapping[str, DatasetSummary]) -> None:
    """Folds are of train rows; and a selection that is blind to the budget makes one candidate only."""
    ranks = spec.ranks
    if isinstance(ranks, CrossValidationRanks):
        rows = data["train"].rows if "train" in data else 0
        if "train" in data and is_text(data["train"]):
            return  # how many rows there are, the tokens tell
        if rows < max(ranks.folds, LEAST_TRAIN_ROWS):
            raise Unprocessable(
                "too_few_rows",
                f"Cross-validation over {ranks.folds} folds needs train data; {rows} rows are too few.",
                hint="Name a larger data set in `data.train`, or ask for another selection.",
                field="ranks.folds" if rows else "data.train",
            )
    if spec.target.of == "latency" and not isinstance(ranks, BudgetRanks):
        raise Unprocessable(
            "latency_ignored",
            f"The selection {ranks.selection} knows no times: it cannot follow a budget of latency.",
            hint="Ask for the selection `budget`, or for MACs or parameters.",
            field="target.of",
        )
    if not _budgeted(spec) and len(spec.target.keeps) > 1:
        raise Unprocessable(
            "keeps_ignored",
            f"The selection {ranks.selection} does not look at `keep`: every candidate would be the same.",
            hint="Ask for the selection `budget` or `fraction`, or give one `keep`.",
            field="target.keep",
        )


def _check_outputs(spec: JobSpec, model: ModelSummary) -> None:
    if Output.HUGGINGFACE in spec.outputs and model.folder is None:
        raise Unprocessable(
            "no_folder",
            "The model did not come as a Hugging Face folder, so that none can be made of it.",
            hint="Leave `huggingface` out of `outputs`, or upload the model's folder as a zip (again, if it "
            "was uploaded before folders could be made).",
            field="outputs",
        )
    if spec.quantize is not None and Output.ONNX not in spec.outputs:
        raise Unprocessable(
            "quantize_without_onnx",
            f"The quantization {spec.quantize} is of ONNX files, and none is asked for.",
            hint="Add `onnx` to `outputs`, or leave out `quantize`.",
            field="quantize",
        )


def _default_task(model: ModelSummary, data: Mapping[str, DatasetSummary]) -> Task:
    """Classification where the data has labels: whole numbers, one per row."""
    if any(map(is_text, data.values())):
        return default_task(model)
    for summary in data.values():
        target = _target(summary)
        if target is not None and _kind(target.dtype) == "integer" and len(target.shape) == 1:
            return Task.CLASSIFICATION
    return Task.NONE


def _check_rows(field: str, task: Task, data: DatasetSummary) -> None:
    """Train data is split into parts that fit, calibrate and select: each needs rows. A mean needs two to
    have a confidence interval."""
    if field == "data.train" and data.rows < LEAST_TRAIN_ROWS:
        raise Unprocessable(
            "dataset_too_small",
            f"{data.rows} rows cannot be split: {LEAST_TRAIN_ROWS} are the least.",
            hint="Add rows, or leave out `data.train`.",
            field=field,
        )
    if task in (Task.REGRESSION, Task.LANGUAGE_MODELING) and data.rows < 2:
        raise Unprocessable(
            "dataset_too_small",
            f"The metric of {task} on one row has no confidence interval.",
            hint="Add rows, or ask for the task `none`.",
            field=field,
        )


def _check_arrays(field: str, task: Task, model: ModelSummary, data: DatasetSummary) -> None:
    lengths = _check_inputs(field, model, data)
    _check_target(field, task, _with_lengths(model.outputs[0], lengths), data)


def _check_inputs(field: str, model: ModelSummary, data: DatasetSummary) -> dict[str, int]:
    """The lengths that the data gives to the model's variable axes."""
    arrays = [array for array in data.arrays if array.name != TARGET]
    if len(model.inputs) == 1 and len(arrays) == 1:
        pairs = [(model.inputs[0], arrays[0])]
    else:
        pairs = _by_name(field, model.inputs, arrays)
    lengths: dict[str, int] = {}
    for expected, array in pairs:
        _check_dtype(field, expected, array)
        _check_shape(field, _with_lengths(expected, lengths), array)
        _check_range(field, expected, array)
        _check_one_value(field, expected, array)
        lengths |= _lengths(expected, array)
    return lengths


def _by_name(
    field: str, inputs: Iterable[ArrayInfo], arrays: Iterable[ArrayInfo]
) -> list[tuple[ArrayInfo, ArrayInfo]]:
    wanted = {item.name: item for item in inputs}
    given = {item.name: item for item in arrays}
    names = _words(wanted)
    if unknown := sorted(given.keys() - wanted.keys()):
        detail = f"The array {unknown[0]} is no input of the model, which takes {names}."
        hint = f"Name the arrays like the inputs ({names}), and the labels `{TARGET}`."
        raise Unprocessable("unknown_input", detail, hint=hint, field=field)
    if absent := sorted(wanted.keys() - given.keys()):
        detail = f"The data set has no array for the model's input {absent[0]}."
        raise Unprocessable("input_missing", detail, hint=f"The model takes {names}.", field=field)
    return [(wanted[name], given[name]) for name in wanted]


def _check_dtype(field: str, expected: ArrayInfo, array: ArrayInfo) -> None:
    if _kind(expected.dtype) != _kind(array.dtype):
        raise Unprocessable(
            "wrong_dtype",
            f"The array {array.name} is {array.dtype}; the input {expected.name} is {expected.dtype}.",
            hint=f"Convert the array to {expected.dtype} and upload it again.",
            field=field,
        )


def _check_shape(field: str, expected: ArrayInfo, array: ArrayInfo) -> None:
    wanted, given = _row(expected), array.shape[1:]
    if not _agree(wanted, given):
        raise Unprocessable(
            "wrong_shape",
            f"A row of the array {array.name} has the shape {_shape(given)}; "
            f"the model's input {expected.name} takes {_shape(wanted)}.",
            hint="The first axis counts the rows; the others must be the model's.",
            field=field,
        )


def _check_one_value(field: str, expected: ArrayInfo, array: ArrayInfo) -> None:
    """Of a number that all rows share; whether tables are alike in all rows is for the job to see."""
    if not expected.shape and array.minimum != array.maximum:
        raise Unprocessable(
            "rows_differ",
            f"The model's input {expected.name} has no axis for rows and has to be the same for all; "
            f"the array has {array.minimum:g} … {array.maximum:g}.",
            hint="Make a data set, and a job, of the rows that have it alike.",
            field=field,
        )


def _check_range(field: str, expected: ArrayInfo, array: ArrayInfo) -> None:
    least, most = expected.minimum, expected.maximum
    if least is None or most is None or array.minimum is None or array.maximum is None:
        return
    if array.minimum < least or array.maximum > most:
        raise Unprocessable(
            "input_out_of_range",
            f"The array {array.name} holds {array.minimum:.0f} … {array.maximum:.0f}; "
            f"the model's input {expected.name} takes {least:.0f} … {most:.0f}.",
            hint="These are indices into a table of the model: check the tokenizer or the encoding.",
            field=field,
        )


def _check_target(field: str, task: Task, output: ArrayInfo, data: DatasetSummary) -> None:
    if task is Task.NONE:
        return
    target = _target(data)
    if target is None:
        raise Unprocessable(
            "target_missing",
            f"The task {task} needs an array named {TARGET}, and the data set has none.",
            hint="Add it and upload again, or ask for the task `none`.",
            field=field,
        )
    wanted = "float" if task is Task.REGRESSION else "integer"
    if _kind(target.dtype) != wanted:
        detail = f"The task {task} takes a target of {wanted} numbers; this one is {target.dtype}."
        raise Unprocessable("wrong_target", detail, hint="Convert it and upload again.", field=field)
    _check_output(task, output)
    _check_target_shape(field, task, output, target)
    if task is not Task.REGRESSION:
        _check_labels(field, output, target)


def _check_output(task: Task, output: ArrayInfo) -> None:
    """Scores have the classes in their last axis; language models may have an axis of positions before it."""
    axes = {Task.CLASSIFICATION: (2,), Task.LANGUAGE_MODELING: (2, 3)}.get(task)
    if axes is not None and (len(output.shape) not in axes or output.shape[-1] == 1):
        detail = (
            f"The task {task} needs a score for each class; the model's output is {_shape(output.shape)}."
        )
        raise Unprocessable("wrong_task", detail, hint="Ask for another task.", field="task")


def _check_target_shape(field: str, task: Task, output: ArrayInfo, target: ArrayInfo) -> None:
    wanted = output.shape[1:] if task is Task.REGRESSION else output.shape[1:-1]
    if not _agree(wanted, target.shape[1:]):
        detail = (
            f"A row of the target has the shape {_shape(target.shape[1:])}; {task} takes {_shape(wanted)}."
        )
        raise Unprocessable("wrong_target", detail, hint="The first axis counts the rows.", field=field)


def _check_labels(field: str, output: ArrayInfo, target: ArrayInfo) -> None:
    if target.ignored and target.minimum is None:
        detail = "Every label is −100, which marks what is ignored: nothing is left to learn or to measure."
        raise Unprocessable("labels_ignored", detail, hint=_CLASSES_HINT, field=field)
    classes = output.shape[-1]
    too_large = isinstance(classes, int) and target.maximum is not None and target.maximum >= classes
    if (target.minimum is not None and target.minimum < 0) or too_large:
        known = f"0 … {classes - 1}" if isinstance(classes, int) else "0 or more"
        detail = f"The labels lie in {target.minimum:g} … {target.maximum:g}; the model knows {known}."
        raise Unprocessable("labels_out_of_range", detail, hint=_CLASSES_HINT, field=field)


def _target(data: DatasetSummary) -> ArrayInfo | None:
    return next((array for array in data.arrays if array.name == TARGET), None)


def _kind(dtype: str) -> str:
    """What kind of number a dtype is: the widths within a kind are converted on the way."""
    for kind, prefixes in {"float": ("float", "bfloat"), "integer": ("int", "uint")}.items():
        if dtype.startswith(prefixes):
            return kind
    return dtype


def _row(expected: ArrayInfo) -> list[int | str]:
    """The shape of what a model's input takes of one row."""
    return [length for axis, length in enumerate(expected.shape) if axis != expected.row_axis]


def _lengths(expected: ArrayInfo, array: ArrayInfo) -> dict[str, int]:
    pairs = zip(_row(expected), array.shape[1:], strict=True)
    return {axis: length for axis, length in pairs if isinstance(axis, str) and isinstance(length, int)}


def _with_lengths(info: ArrayInfo, lengths: Mapping[str, int]) -> ArrayInfo:
    """The same array with the known ones of its variable axes as numbers."""
    axes = [lengths.get(axis, axis) if isinstance(axis, str) else axis for axis in info.shape]
    return info.model_copy(update={"shape": axes})


def _agree(wanted: list[int | str], given: list[int | str]) -> bool:
    """Whether every dimension of what is given is one that is wanted, as far as both are known."""
    return len(wanted) == len(given) and all(map(_may_be, wanted, given))


def _may_be(wanted: int | str, given: int | str) -> bool:
    if isinstance(wanted, int) or isinstance(given, str):
        return isinstance(given, str) or wanted == given
    product = _PRODUCT.fullmatch(wanted)
    return product is None or given % int(product[1]) == 0


def _shape(shape: list[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


def _words(names: Iterable[str]) -> str:
    return ", ".join(names)
