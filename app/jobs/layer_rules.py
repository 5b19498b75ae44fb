"""The overrides for single layers: which rule decides which layer, and whether it can be followed."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from app.contract.spec import JobSpec, LayerRule, Method
from app.contract.summary import LayerInfo, ModelSummary
from app.errors import Unprocessable


def check_layers(spec: JobSpec, model: ModelSummary) -> None:
    """Raise `Unprocessable` for a rule that matches nothing or asks too much, or if nothing is left to do."""
    layers = _considered(spec, model)
    for place, rule in enumerate(spec.layers):
        if not any(fnmatchcase(layer.name, rule.match) for layer in layers):
            raise Unprocessable(
                "no_such_layer",
                f"No layer's name matches {rule.match}.",
                hint="`GET /v1/models/{id}` lists the layers, and the pairs that stand for some where "
                "`joint_svd` is asked for; `*` stands for any characters.",
                field=f"layers.{place}.match",
            )
    decisions = [(layer, _first_match(spec, layer)) for layer in layers]
    for layer, index in decisions:
        if index is not None:
            _check_rule(spec, index, layer)
    if not any(_compressible(spec, layer, index) for layer, index in decisions):
        raise _nothing(spec, layers)


def _considered(spec: JobSpec, model: ModelSummary) -> list[LayerInfo]:
    """What the job decides about: the layers, or pairs in the place of their members."""
    if not spec.joint:
        return model.layers
    members = {name for pair in model.pairs for name in pair.members}
    return [*(layer for layer in model.layers if layer.name not in members), *model.pairs]


def _first_match(spec: JobSpec, layer: LayerInfo) -> int | None:
    matches = (index for index, rule in enumerate(spec.layers) if fnmatchcase(layer.name, rule.match))
    return next(matches, None)


def _check_rule(spec: JobSpec, index: int, layer: LayerInfo) -> None:
    rule = spec.layers[index]
    methods = _methods(spec, rule, layer)
    if not methods and rule.method is not Method.KEEP:
        able = ", ".join(layer.methods) or "nothing but keep"
        raise Unprocessable(
            "impossible_method",
            f"The layer {layer.name} ({layer.kind}) cannot take {rule.method or 'any of the methods'}.",
            hint=f"It can take {able}. A narrower pattern, or an earlier rule with `keep`, leaves it out.",
            layer=layer.name,
            field=f"layers.{index}.{'method' if rule.method else 'match'}",
        )
    if rule.rank is not None:
        _check_rank(index, rule.rank, methods, layer)


def _methods(spec: JobSpec, rule: LayerRule, layer: LayerInfo) -> list[Method]:
    """The methods that the rule leaves to the layer; a method in a rule need not be in `methods`."""
    wanted = [Method(method) for method in spec.methods] if rule.method is None else [rule.method]
    return [method for method in wanted if method in layer.methods]


def _check_rank(index: int, rank: int | list[int], methods: Sequence[Method], layer: LayerInfo) -> None:
    if any(_fits(rank, method, layer) for method in methods):
        return
    limits = [f"{method} {_limit(method, layer)}" for method in methods]
    raise Unprocessable(
        "rank_out_of_range",
        f"The rank {rank} is not possible for the layer {layer.name}.",
        hint=f"The largest ranks: {', '.join(limits)}.",
        layer=layer.name,
        field=f"layers.{index}.rank",
    )


def _fits(rank: int | list[int], method: Method, layer: LayerInfo) -> bool:
    ranks, most = (rank if isinstance(rank, list) else [rank]), _limit(method, layer)
    spread = ranks * len(most) if len(ranks) == 1 else ranks  # one number stands for all
    return len(spread) == len(most) and all(r <= m for r, m in zip(spread, most, strict=True))


def _limit(method: Method, layer: LayerInfo) -> list[int]:
    return layer.max_rank.get(method, [])


def _compressible(spec: JobSpec, layer: LayerInfo, index: int | None) -> bool:
    if index is None:
        return any(method in layer.methods for method in spec.methods)
    return spec.layers[index].method is not Method.KEEP


def _nothing(spec: JobSpec, layers: Sequence[LayerInfo]) -> Unprocessable:
    able = sorted({method for layer in layers for method in layer.methods})
    if not able:
        detail = "The model has no layer that any method can take."
        hint = "`GET /v1/models/{id}` says for each layer why."
        return Unprocessable("nothing_to_compress", detail, hint=hint, field="model")
    detail = "With these methods and rules every layer is kept dense."
    hint = f"The model's layers can take {', '.join(able)}; see `methods` and `layers`."
    field = "layers" if spec.layers else "methods"
    return Unprocessable("nothing_to_compress", detail, hint=hint, field=field)
