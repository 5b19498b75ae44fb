"""greenformer: SVD of linear layers and convolutions at one share of the break-even rank."""

import torch
from torch import nn

from benchmarks.peers.worker import Compressed, Task, main, meet_budget, pretend

pretend("matrix_fact", "transformers")  # another solver, and the class of one layer; neither is used here

from greenformer import auto_fact  # noqa: E402


def _svd(task: Task) -> Compressed:
    @torch.no_grad()
    def build(network: nn.Module, share: float) -> nn.Module:
        torch.manual_seed(0)  # its SVD is randomised
        kept = [network.get_submodule(path) for path in task.left_alone()]
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        chosen = [layer for layer in layers if layer not in kept]
        made: nn.Module = auto_fact(network, rank=share, solver="svd", submodules=chosen)
        return made

    return meet_budget(task, build)


if __name__ == "__main__":
    main({"SVD": _svd})
