"""One interpreted pass over calibration data, which sees what every weight multiplies and what depends on
it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from workers.engine.calibration.moments import Moments
from workers.engine.data import Batch
from workers.engine.errors import EngineError
from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import OutputKind, log_probabilities, outputs_are
from workers.engine.layers.base import Layer
from workers.engine.padding import has_positions, real_positions

Goal = Literal["classes", "values"]
_POSITIONS = 4096  # of one layer in one batch at most: more say little that is new


def collect(
    network: Network,
    layers: Sequence[Layer],
    batches: Callable[[], Iterable[Batch]],
    *,
    goal: Goal,
    memory: int,
    keep: Callable[[Layer, Moments], None],
) -> None:
    """Gather the moments of every layer that can be factorized, and hand each to `keep`.

    The gradients are those of the log-likelihood of labels drawn from the network's own outputs (`classes`:
    the true Fisher information), or of its outputs' squared error relative to their size (`values`): no
    targets are needed. Layers are taken in as many passes as keep their moments within `memory` bytes.

    Args:
        network: read only; layers are those that `find` made of it.
        batches: called once for every pass.
    """
    open_layers = [layer for layer in layers if layer.methods]
    for group in _groups(open_layers, memory):
        found = _one_pass(network, group, batches(), goal)
        for layer, moments in zip(group, found, strict=True):
            keep(layer, moments)


def _groups(layers: Sequence[Layer], memory: int) -> Iterator[list[Layer]]:
    group: list[Layer] = []
    held = 0
    for layer in layers:
        inputs = layer.observed if layer.one_hot else layer.observed**2
        size = 8 * (inputs + len(layer.matrix) ** 2)
        if group and held + size > memory:
            yield group
            group, held = [], 0
        group.append(layer)
        held += size
    if group:
        yield group


def _one_pass(
    network: Network, layers: Sequence[Layer], batches: Iterable[Batch], goal: Goal
) -> list[Moments]:
    frozen = network.copy()
    for parameter in frozen.module.parameters():
        parameter.requires_grad_(False)
    moments = [Moments.empty(layer.observed, one_hot=layer.one_hot, tied=layer.tied) for layer in layers]
    kind = outputs_are(network)
    generator = torch.Generator().manual_seed(0)
    taps: dict[str, list[tuple[Layer, Moments]]] = {}
    for layer, seen in zip(layers, moments, strict=True):
        for site in layer.observed_sites:
            taps.setdefault(site.node.name, []).append((layer, seen))
    for inputs, _ in batches:
        positions = real_positions(network.inputs, inputs)
        outputs = _Observer(frozen, taps, positions, generator).run(*inputs)
        score = _score(_real(_first(outputs), positions), goal, kind, generator)
        if score.requires_grad:
            score.backward()  # type: ignore[no-untyped-call]  # torch's own gap
    return moments


class _Observer(Interpreter):
    """Runs a network and shows every layer's call to its moments."""

    def __init__(
        self,
        network: Network,
        taps: dict[str, list[tuple[Layer, Moments]]],
        positions: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__(network.module, garbage_collect_values=True)
        self._taps = taps
        self._positions = positions
        self._generator = generator

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        for layer, moments in self._taps.get(n.name, ()):
            arguments = map_arg(surgery.arguments(n), self.env.__getitem__)
            moments.see_inputs(self._some(layer.vectors(arguments)))
            transposed = layer.transposed_vectors(arguments)
            if transposed is not None:
                moments.see_outputs(self._some(transposed))
            if isinstance(value, Tensor) and value.is_floating_point() and not layer.tied:
                value = value if value.requires_grad else value.detach().requires_grad_().clone()
                value.register_hook(_hook(layer, moments, self._positions))  # type: ignore[no-untyped-call]  # torch's own gap
        return value

    def _some(self, X: Tensor) -> Tensor:
        """The vectors that are not padding, or as many of them as are worth their time; counts are whole."""
        X = _without_padding(X, self._positions)
        if X.ndim == 1 or len(X) <= _POSITIONS:
            return X
        return X[torch.randperm(len(X), generator=self._generator)[:_POSITIONS]]


def _hook(layer: Layer, moments: Moments, positions: Tensor | None) -> Callable[[Tensor], None]:
    # It knows no observer, which would keep its whole graph alive until garbage is collected.
    def see(gradient: Tensor) -> None:
        moments.see_gradients(_without_padding(layer.gradients(gradient), positions))

    return see


def _without_padding(X: Tensor, positions: Tensor | None) -> Tensor:
    """The vectors that are not padding, where there is one for each position."""
    if positions is None or X.ndim == 1 or len(X) != positions.numel():
        return X
    return X[positions.flatten()]


def _first(outputs: Any) -> Tensor:
    first: Tensor = next(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))
    if not bool(first.isfinite().all()):
        raise EngineError(
            "outputs_not_finite",
            "The model's outputs on the calibration data are not finite numbers.",
            hint="Check the data's scale: the model expects what it was trained on.",
            field="data.train",
        )
    return first


def _real(outputs: Tensor, positions: Tensor | None) -> Tensor:
    return outputs[positions] if positions is not None and has_positions(outputs, positions) else outputs


def _score(outputs: Tensor, goal: Goal, kind: OutputKind, generator: torch.Generator) -> Tensor:
    """What the gradients are taken of, summed over the examples so that each has its own gradient."""
    if goal == "values":
        scale = outputs.detach().square().sum() / len(outputs)
        noise = torch.randn(outputs.shape, generator=generator).to(outputs)
        return (outputs * noise).sum() / scale.clamp_min(torch.finfo(outputs.dtype).tiny).sqrt()
    likelihoods = log_probabilities(outputs, kind).flatten(0, -2)
    drawn = torch.multinomial(likelihoods.detach().exp().cpu(), 1, generator=generator)
    return likelihoods.gather(1, drawn.to(likelihoods.device)).sum()
