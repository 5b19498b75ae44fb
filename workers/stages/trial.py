"""Before any work: does the network run on the data, and can the data judge it?"""

import numpy as np

from app.contract.spec import Task
from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.padding import has_positions, real_positions
from workers.stages import judge
from workers.stages.context import Context
from workers.stages.measure import noise

_ROWS = 8


def run(context: Context) -> None:
    """Run the original on a few rows of each part of the data, or on noise where there is none.

    Raises `EngineError`: `weights_not_numbers`, `network_fails` where the network cannot compute the rows,
    `outputs_not_finite`, `too_few_labels` where none or too few of the targets count.
    """
    _demand_weights(context)
    splits = context.splits
    tested = "data.test" if "test" in context.order.formats else "data.train"
    parts = [(splits.test or noise(context), tested if splits.test else "model")]
    if splits.fit is not None:
        parts.append((splits.fit, "data.train"))
    for examples, field in parts:
        _run_on(context, examples.take(np.arange(min(_ROWS, len(examples)))), field)
        if examples.target is not None and context.task is not Task.NONE:
            _demand_targets(context, examples, field)


def _demand_weights(context: Context) -> None:
    """NaN is in no artifact: a row of a table that holds it may never be looked up, and still be shipped."""
    module = context.original.module
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.isnan().any():
            raise EngineError(
                "weights_not_numbers",
                f"The weight {path} holds values that are not numbers (NaN).",
                hint="Look for where the training went astray, and upload an earlier state.",
                layer=path.rpartition(".")[0] or path,
                field="model",
            )


def _run_on(context: Context, examples: Examples, field: str) -> None:
    try:
        outputs = judge.outputs(context.original, examples)
    except (RuntimeError, IndexError, ValueError) as error:  # torch's, for values and shapes that do not fit
        raise EngineError(
            "network_fails",
            f"The network cannot compute these inputs: {str(error).partition(chr(10))[0]}.",
            hint="Look for lengths and indices outside of what the network was exported for.",
            field=field,
        ) from error
    positions = real_positions(context.original.inputs, examples.inputs)
    real = outputs[positions] if positions is not None and has_positions(outputs, positions) else outputs
    if not real.isfinite().all():
        raise EngineError(
            "outputs_not_finite",
            "The network's outputs are not finite numbers before anything is done to it.",
            hint="Look for weights that are NaN or infinite, and for inputs out of the usual range.",
            field="model",
        )


def _demand_targets(context: Context, examples: Examples, field: str) -> None:
    if not judge.judgeable(context, examples):
        raise EngineError(
            "too_few_labels",
            f"Of {len(examples)} rows there are too few whose targets count, to learn from or to measure on.",
            hint="Add rows, or labels other than −100.",
            field=field,
        )
