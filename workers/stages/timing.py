"""Where the budget is a time: what every form of every layer takes on this machine, measured before ranks
are chosen by it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import onnxruntime
from torch.fx import Node
from torch.fx.node import map_arg

from app.contract.status import Stage
from app.planning.rules import Rules, at_rank, rules_of
from workers.engine.errors import EngineError
from workers.engine.formats import onnx
from workers.engine.graph import surgery
from workers.engine.graph.excerpt import excerpt
from workers.engine.graph.network import Network
from workers.engine.layers.base import Form, Layer
from workers.engine.measure import latency
from workers.engine.measure.form_times import calls_of, time_forms
from workers.engine.ranks.selection import worth_timing
from workers.messages import Timed
from workers.stages.context import Context, load, save
from workers.stages.resources import THREADS
from workers.stages.timetable import TimedForm, TimedLayer, Timetable

_DENSE, _IQR = "dense", "iqr"
_TIMETABLE = "timetable.json"
_LAYER_SECONDS, _NETWORK_SECONDS = 1.0, 2.0
_ROUNDS, _STEADY = 3, 0.15
_NOISY = 0.35  # of the median, between the quartiles, for most layers


def measure(context: Context, layers: Sequence[Layer]) -> None:
    """Time the forms that budgets may ask for, and keep what was found; known times are taken from the
    worker. Where this machine's times repeat too badly to choose by, say so and keep nothing.

    `layers` are the original's, which know their weightings.
    """
    rules = rules_of(context.spec, layers)
    wanted = {layer: forms for layer in layers if (forms := _wanted(layer, rules))}
    timed = [each for layer, forms in wanted.items() if (each := _layer(context, layer, forms))]
    found = Timetable(network_ms=_network(context), layers=timed)
    if found.noise > _NOISY:
        context.notice(
            "timings_too_noisy",
            f"Times on this machine scatter by {found.noise:.0%} between their quartiles, too much to choose "
            "by: the budget is taken as one of MACs instead.",
        )
        return
    keep(context, found)


def keep(context: Context, found: Timetable | None) -> None:
    """For whoever plans by it; none is none."""
    if found is not None:
        save(context.folder(Stage.PLAN) / _TIMETABLE, found)


def _wanted(layer: Layer, rules: Rules) -> list[Form]:
    """What the rules leave to choose from; of a layer that has a rank of its own that form."""
    if not layer.methods or layer.name in rules.kept:
        return []
    if layer.name in rules.rank:
        fixed = at_rank(layer, rules)
        return [layer.methods[fixed.method].form(fixed.rank)] if fixed else []
    return worth_timing(layer, rules.allowed(layer))


def timetable(context: Context) -> Timetable | None:
    """What `measure` kept."""
    path = context.folder(Stage.PLAN) / _TIMETABLE
    return load(path, Timetable) if path.exists() else None


def _network(context: Context) -> float:
    """The median of the original's time."""
    path = context.folder(Stage.PLAN) / "original.onnx"
    onnx.write(context.original, path)
    runner = latency.onnx_runner(path, context.original.examples(), THREADS)
    found = latency.interleave({"original": runner}, seconds=_NETWORK_SECONDS)
    path.unlink()
    return found["original"].p50_ms


def _layer(context: Context, layer: Layer, forms: Sequence[Form]) -> TimedLayer | None:
    """As the worker knows it, where it knows every form, else measured; None for what cannot run alone."""
    try:
        name = _signature(context.original, layer)
        known = context.latencies.get(name, {})
        if not all(_key(form) in known for form in forms):
            known = _joined(known, _measured(context, layer, forms))
            context.latencies[name] = known  # layers of one shape take one time
            context.emit(Timed(signature=name, ms=known))
    except (EngineError, KeyError, ValueError, RuntimeError):  # some mean nothing on their own
        context.notice("not_timed", f"{layer.name} cannot be timed on its own: it stays dense.", layer.name)
        return None
    return TimedLayer(
        layer=layer.name,
        dense_ms=known[_DENSE],
        iqr_ms=known[_IQR],
        forms=[TimedForm(method=form.method, rank=list(form.rank), ms=known[_key(form)]) for form in forms],
    )


def _measured(context: Context, layer: Layer, forms: Sequence[Form]) -> dict[str, float]:
    """The steadiest of a few rounds: what else runs on the machine may disturb one."""
    rounds: list[dict[str, float]] = []
    while len(rounds) < _ROUNDS and not (rounds and _is_steady(rounds[-1])):
        rounds.append(_round(context, layer, forms))
    return min(rounds, key=lambda each: each[_IQR] / each[_DENSE])


def _joined(known: dict[str, float], found: dict[str, float]) -> dict[str, float]:
    """What was known of the same calls, and what was found besides, as shares of the dense time."""
    scale = known[_DENSE] / found[_DENSE] if known else 1.0
    return {form: scale * ms for form, ms in found.items()} | known


def _is_steady(times: dict[str, float]) -> bool:
    return times[_IQR] <= _STEADY * times[_DENSE]


def _round(context: Context, layer: Layer, forms: Sequence[Form]) -> dict[str, float]:
    dense, *timed = time_forms(
        context.original,
        layer,
        forms,
        context.layers,
        context.folder(Stage.PLAN) / "timing",
        threads=THREADS,
        seconds=_LAYER_SECONDS,
    )
    times = {_key(form): each.p50_ms for form, each in zip(forms, timed, strict=True)}
    return {_DENSE: dense.p50_ms, _IQR: dense.iqr_ms, **times}


def _key(form: Form) -> str:
    return " ".join([form.method, *map(str, form.rank)])


def _signature(network: Network, layer: Layer) -> str:
    """The same for calls that take the same time: runtime and operators, shapes and arguments."""
    part = excerpt(network, calls_of(layer), 1)
    places = {node: place for place, node in enumerate(part.module.graph.nodes)}

    def described(node: Node) -> Any:
        if node.op == "get_attr":
            return list(surgery.tensor_of(part.module, node).shape)
        return [str(node.target) if node.op == "call_function" else node.op, map_arg(node.args, places.get)]

    inputs = [[str(spec.dtype), spec.shape] for spec in part.inputs]
    whole = [onnxruntime.__version__, THREADS, inputs, [described(node) for node in places]]
    return hashlib.sha256(json.dumps(whole, default=str).encode()).hexdigest()
