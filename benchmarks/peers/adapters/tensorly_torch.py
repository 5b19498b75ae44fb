"""tensorly-torch: convolutions as its factorized layers, Tucker on both channel modes, one share of
parameters for all.

Linear layers stay as they are: there its factorizations cut features into digits, and a layer without a bias
gets one.
"""

import torch
from tltorch import FactorizedConv
from torch import nn

from benchmarks.peers.worker import Compressed, Task, main, meet_budget


def _tucker(task: Task) -> Compressed:
    def build(network: nn.Module, share: float) -> nn.Module:
        kept = task.left_alone()
        for path, layer in list(network.named_modules()):
            wide = isinstance(layer, nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) > 1
            if isinstance(layer, nn.Conv2d) and wide and path not in kept:
                network.set_submodule(path, _factorized(layer, share))
        return network

    return meet_budget(task, build)


def _factorized(layer: nn.Conv2d, share: float) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = FactorizedConv.from_conv(
        layer,
        rank=share,
        factorization="tucker",
        implementation="factorized",
        fixed_rank_modes="spatial",
    )
    return made


if __name__ == "__main__":
    main({"Tucker": _tucker})
