"""Looking at what was uploaded: the signature, the layers and their cost; the arrays of a data set."""

import gc
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.contract.menu import Menu, Offer
from app.contract.spec import DEFAULT_METHODS, Decomposition, Output, Task
from app.contract.status import Stage
from app.contract.summary import (
    ArrayInfo,
    DatasetSummary,
    FolderInfo,
    LayerInfo,
    ModelSummary,
    PairInfo,
    TokenizerInfo,
)
from workers.engine.admit.tokenizer import Tokenizer
from workers.engine.errors import EngineError
from workers.engine.formats import arrays, onnx, text
from workers.engine.formats.hf import tokenise
from workers.engine.formats.hf.signatures import predicts_tokens
from workers.engine.formats.imported import Imported
from workers.engine.formats.onnx_in.check import Answer, answers, check
from workers.engine.graph.indices import table_lengths
from workers.engine.graph.network import Input, Network
from workers.engine.layers.attention import AttentionPair
from workers.engine.layers.base import Factorization, Layer
from workers.engine.layers.find import find
from workers.engine.layers.pairs import paired
from workers.engine.measure import cost
from workers.engine.ranks.selection import for_menu
from workers.stages import trial
from workers.stages.context import Context, read_model, save
from workers.stages.text import longest

_MOST_PARAMETERS = 1 << 28  # of models with menus: the spectra of larger ones would keep a worker for long
_QUICK = 1 << 34  # products that spectra of all layers may take while the upload waits: some ten seconds


def run(context: Context) -> None:
    """The job's first stage: the model as this job sees it.

    Raises what `trial.run` does, and `EngineError` (`onnx_unsupported`) where an ONNX file is asked for that
    would not run.
    """
    if Output.ONNX in context.spec.outputs:
        onnx.demand_translatable(context.original)
    trial.run(context)
    summary = describe(context.original, find(context.original))
    for remark in context.imported.remarks:
        context.notice(remark.code, remark.detail)
    for corpus in filter(None, map(context.corpus, ("train", "test"))):
        context.notice("tokenised", corpus.describe())
    for operator in cost.count(context.original).uncounted:
        context.notice(
            "uncounted_operator", f"No formula counts the MACs of {operator}: they are a lower bound."
        )
    placeholders = context.original.module.graph.find_nodes(op="placeholder")
    for spec, node in zip(context.original.inputs, placeholders, strict=True):
        if not node.users:
            context.notice("unused_input", f"The network never uses its input {spec.name!r}.")
    save(context.folder(Stage.INSPECT) / "summary.json", summary)


def model(
    path: Path, stored_as: str = "pt2", described: Callable[[ModelSummary], None] = lambda _: None
) -> ModelSummary:
    """An uploaded model's summary, with the menus that plans are made of unless it is very large. Where they
    take long, `described` is given the summary without them first.

    Raises `Rejected`, also where an ONNX file does not compute here what it does in ONNX Runtime.
    """
    found, layers, told = _seen(path, stored_as)
    if layers is None:
        gc.collect()  # a graph and its nodes hold each other
    if told:
        check(path, told)
    if found.parameters > _MOST_PARAMETERS:
        return found
    if _takes_long(found):
        described(found)
    layers = find(read_model(path, stored_as).network) if layers is None else layers
    return found.model_copy(update={"menus": menus(layers)})


def _seen(path: Path, stored_as: str) -> tuple[ModelSummary, list[Layer] | None, list[Answer]]:
    """The summary without menus, the layers and, of an ONNX file, answers to compare with ONNX Runtime's. It
    will hold the weights, too: where they are large, the layers are None, so that nobody holds ours."""
    imported = read_model(path, stored_as)
    if imported.tokenizer is not None:
        tokenise.try_out(path)
    layers = find(imported.network)
    found = describe(imported.network, layers).model_copy(update={"folder": _folder(imported)})
    if stored_as != "onnx":
        return found, layers, []
    return found, None if _takes_long(found) else layers, answers(imported.network)


def _takes_long(found: ModelSummary) -> bool:
    """Whether spectra of all its layers do."""
    return sum(map(_products, found.layers)) > _QUICK


def _products(layer: LayerInfo) -> int:
    """About as many as a singular value decomposition of the layer's weight takes, up to a factor."""
    if not layer.methods:
        return 0
    rows, columns = layer.shape[0], math.prod(layer.shape[1:])
    return rows * columns * min(rows, columns)


def dataset(path: Path, stored_as: str) -> DatasetSummary:
    """An uploaded data set's summary; raises `Rejected`."""
    if stored_as == text.FORMAT:
        rows = text.count(path)
        return DatasetSummary(rows=rows, arrays=[ArrayInfo(name="text", dtype="string", shape=[rows])])
    facts = arrays.inspect(path, stored_as)
    infos = [
        ArrayInfo(
            name=array.name,
            dtype=array.dtype,
            shape=list(array.shape),
            minimum=array.minimum,
            maximum=array.maximum,
            ignored=array.ignored,
            classes=list(array.classes) or None,
        )
        for array in facts.arrays
    ]
    return DatasetSummary(rows=facts.rows, arrays=infos)


def describe(network: Network, layers: Sequence[Layer]) -> ModelSummary:
    """A network's signature and cost, and its `layers`, as they are found."""
    counted, tables = cost.count(network), table_lengths(network)
    return ModelSummary(
        inputs=[_input(spec, tables.get(spec.name)) for spec in network.inputs],
        outputs=_outputs(network),
        parameters=counted.parameters,
        macs=counted.macs,
        layers=[_layer(layer) for layer in layers],
        pairs=[_pair(layer) for layer in paired(layers) if isinstance(layer, AttentionPair)],
    )


def _folder(imported: Imported) -> FolderInfo | None:
    if imported.architecture is None:
        return None
    tokenizer = imported.tokenizer and _tokenizer(imported, imported.tokenizer)
    return FolderInfo(architecture=imported.architecture, tokenizer=tokenizer)


def _tokenizer(imported: Imported, found: Tokenizer) -> TokenizerInfo:
    predicts = predicts_tokens(imported.architecture or "")
    tasks = [Task.LANGUAGE_MODELING, Task.NONE] if predicts else [Task.NONE]
    return TokenizerInfo(ids=found.ids, longest=longest(imported.network, found), tasks=tasks)


def menus(layers: Iterable[Layer]) -> list[Menu]:
    """What the layers may become by the default methods, in the plain norm of their weights."""
    return [Menu(layer=layer.name, offers=_offers(layer)) for layer in layers if layer.methods]


def _offers(layer: Layer) -> dict[Decomposition, Offer]:
    return {method: _offer(layer.methods[method]) for method in DEFAULT_METHODS if method in layer.methods}


def _offer(factorization: Factorization[Any]) -> Offer:
    parameters, macs = _coefficients(factorization)
    return Offer(
        parameters=parameters,
        macs=macs,
        forms=[(list(form.rank), float(f"{form.error:.6g}")) for form in for_menu(factorization)],
    )


def _coefficients(factorization: Factorization[Any]) -> tuple[list[int], list[int]]:
    """Those of the costs as `Offer` has them: a cost is linear in every number of the rank, so that its
    values at ranks of zeros and ones determine it (Möbius inversion over the sets of modes)."""
    modes = len(factorization.max_rank)
    values = [
        factorization.cost(tuple(subset >> mode & 1 for mode in range(modes))) for subset in range(1 << modes)
    ]
    parameters = _inverted([weights + factorization.layer.bias_parameters for weights, _ in values], modes)
    return parameters, _inverted([macs for _, macs in values], modes)


def _inverted(values: list[int], modes: int) -> list[int]:
    for bit in (1 << mode for mode in range(modes)):
        values = [
            value - values[subset ^ bit] if subset & bit else value for subset, value in enumerate(values)
        ]
    return values


def _pair(pair: AttentionPair) -> PairInfo:
    first, second = (site.name for site in pair.members)
    return PairInfo(**_layer(pair).model_dump(), members=(first, second))


def _layer(layer: Layer) -> LayerInfo:
    ranks = {method: list(each.max_rank) for method, each in layer.methods.items()}
    return LayerInfo(
        name=layer.name,
        kind=layer.kind,
        shape=list(layer.weight.shape),
        groups=layer.groups,
        parameters=layer.parameters,
        macs=layer.macs,
        methods=list(ranks),
        max_rank=ranks,
        reason=layer.reason,
    )


def _input(spec: Input, table: int | None) -> ArrayInfo:
    """`table` is the length of the table that the input indexes, if it does."""
    return ArrayInfo(
        name=spec.name,
        dtype=dtype_name(spec.dtype),
        shape=[axis if isinstance(axis, int) else str(axis) for axis in spec.shape],
        minimum=None if table is None else 0,
        maximum=None if table is None else table - 1,
        row_axis=spec.row_axis,
    )


def _outputs(network: Network) -> list[ArrayInfo]:
    """Names and shapes of the outputs; an axis that follows a variable axis of the input has its symbol."""
    results: Any = network.module.graph.output_node().args[0]
    nodes = results if isinstance(results, tuple | list) else [results]
    found = []
    for node in nodes:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            raise EngineError("unknown_output", f"The output {node.name!r} is not a tensor.")
        shape = [int(axis) if isinstance(axis, int) else str(axis) for axis in value.shape]
        found.append(ArrayInfo(name=node.name, dtype=dtype_name(value.dtype), shape=shape))
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, as numpy writes it."""
    return str(dtype).removeprefix("torch.")
