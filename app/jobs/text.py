"""Whether raw text can be the data of a job: the model's tokenizer, the task and the length."""

from collections.abc import Mapping

from app.contract.spec import JobSpec, Task
from app.contract.summary import DatasetSummary, ModelSummary, TokenizerInfo
from app.errors import Unprocessable

_STRING = "string"
_TOKENS_HINT = "Or upload the text as tokens: arrays named like the model's inputs."


def is_text(data: DatasetSummary) -> bool:
    """Whether a data set is raw text, of which tokens are made for the job."""
    return any(array.dtype == _STRING for array in data.arrays)


def default_task(model: ModelSummary) -> Task:
    """Language modeling where the model can be judged by it."""
    tokenizer = model.folder and model.folder.tokenizer
    return Task.LANGUAGE_MODELING if tokenizer and Task.LANGUAGE_MODELING in tokenizer.tasks else Task.NONE


def check_length(spec: JobSpec, data: Mapping[str, DatasetSummary]) -> None:
    """Arrays have their lengths; raises `Unprocessable`."""
    if spec.data.length is not None and not any(map(is_text, data.values())):
        raise Unprocessable(
            "length_ignored",
            "`data.length` is for raw text, and there is none: rows of arrays have their own length.",
            hint="Leave it out, or name a data set of raw text.",
            field="data.length",
        )


def check_text(field: str, spec: JobSpec, task: Task, model: ModelSummary) -> None:
    """Raises `Unprocessable` where no rows for this model and task can be made of a text."""
    tokenizer = model.folder and model.folder.tokenizer
    if not tokenizer:
        raise Unprocessable(
            "no_tokenizer",
            "Raw text needs a model that takes tokens alone, whose Hugging Face folder has a tokenizer.json.",
            hint=f"Save the tokenizer into the folder and upload it again. {_TOKENS_HINT}",
            field=field,
        )
    _check_ids(field, tokenizer, model)
    if task not in tokenizer.tasks:
        raise Unprocessable(
            "wrong_task",
            f"Raw text has no targets for the task {task} of this model: it can be "
            f"{' or '.join(tokenizer.tasks)}.",
            hint=f"Ask for that. {_TOKENS_HINT}",
            field="task",
        )
    longest = tokenizer.longest
    if longest is not None and spec.data.length is not None and spec.data.length > longest:
        raise Unprocessable(
            "too_long",
            f"Rows of {spec.data.length} tokens are longer than the {longest} that the model takes.",
            hint=f"Ask for {longest} at most.",
            field="data.length",
        )


def _check_ids(field: str, tokenizer: TokenizerInfo, model: ModelSummary) -> None:
    table = next((item.maximum for item in model.inputs if item.name == "input_ids"), None)
    if table is not None and tokenizer.ids > table + 1:
        raise Unprocessable(
            "tokenizer_differs",
            f"The tokenizer has the ids 0 … {tokenizer.ids - 1}; the model's embedding has 0 … {table:.0f}.",
            hint="Upload the model with the tokenizer that it was trained with.",
            field=field,
        )
