"""One counter for all: torch's own, so that nobody's arithmetic counts for himself."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one call, for an `example` of batch 1: half of the FLOPs that torch counts."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(example)
    return counter.get_total_flops() // 2


def parameters(module: nn.Module) -> int:
    """Trainable numbers; what is shared counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
