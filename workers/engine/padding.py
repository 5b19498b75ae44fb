"""Padding: which positions of a batch are real, as an attention mask among the inputs says."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.engine.graph.network import Input
from workers.engine.rows import Rows, parts


def real_positions(inputs: Sequence[Input], batch: Sequence[Tensor | Rows]) -> Tensor | None:
    """The positions of a batch that count: boolean, (batch, length), on the mask's device.

    `batch` has one array for each of `inputs`, rows first. A mask is an input called `attention_mask`, `mask`
    or `input_mask`, of two axes and any dtype, that holds ones where a position is real and zeros where it is
    padding. None where there is no such input, where it holds anything else (a mask to be added to scores),
    or no ones at all.
    """
    for spec, values in zip(inputs, batch, strict=True):
        if spec.is_mask:
            masks = (
                [values] if isinstance(values, Tensor) else [torch.as_tensor(part) for part in parts(values)]
            )
            real = torch.cat([mask == 1 for mask in masks])
            others = all(bool(((mask == 0) | (mask == 1)).all()) for mask in masks)
            return real if others and bool(real.any()) else None
    return None


def has_positions(output: Tensor, positions: Tensor) -> bool:
    """Whether an output (batch, length, …) has something for each of the positions (batch, length).

    An output of two axes never has: its second may be as many classes as there are positions.
    """
    return output.dim() > 2 and output.shape[:2] == positions.shape
