"""Convolutions in a row that stand for one: what each costs, and how they go into the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.layers.base import Site
from workers.engine.layers.conv.layer import ConvLayer


@dataclass(frozen=True)
class Stage:
    """One convolution of a chain: what its weight is called, the shape (outputs, inputs, *k) of one group's
    kernel, the axes that it moves along, and into how many groups it splits a group."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()
    groups: int = 1


Chain = tuple[Stage, ...]


def pointwise(layer: ConvLayer, name: str, outputs: int, inputs: int) -> Stage:
    """A 1×1 convolution."""
    return Stage(name, (outputs, inputs, *(1 for _ in layer.axes)))


def cost(layer: ConvLayer, chain: Chain) -> tuple[int, int]:
    """Weights of all groups, and multiply-accumulates of all calls for batch 1."""
    weights = macs = 0
    before: tuple[int, ...] = ()
    for stage in chain:
        size = layer.shape[0] * prod(stage.shape)
        weights += size
        macs += size * layer.pixels(stage.axes, before=before)
        before += stage.axes
    return weights, macs


def insert(layer: ConvLayer, site: Site, chain: Chain, weights: Sequence[Node]) -> Node:
    """Insert the calls in order; the last one adds the bias."""
    value: Node = site.arguments["input"]
    for stage, weight in zip(chain, weights, strict=True):
        bias = site.arguments["bias"] if stage is chain[-1] else None
        groups = layer.groups * stage.groups
        value = layer.call(site, value, weight, axes=stage.axes, groups=groups, bias=bias)
    return value


def compose(chain: Chain, kernels: Sequence[Tensor]) -> Tensor:
    """The kernel (C_out, C_in, *k) of one group that the stages' kernels stand for."""
    whole = kernels[0]
    for stage, kernel in zip(chain[1:], kernels[1:], strict=True):
        # They meet in channels only: where one has several taps the other has one.
        whole = kernel * whole if stage.groups > 1 else torch.einsum("or...,ri...->oi...", kernel, whole)
    return whole
