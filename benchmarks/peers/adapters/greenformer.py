"""greenformer: SVD of linear layers and convolutions at one share of the break-even rank. The last layer stays as it is."""

import torch
from torch import nn

from benchmarks.peers.worker import Compressed, Task, main, meet_budget, pretend

pretend("matrix_fact", "transformers")  # another solver, and the class of one layer; neither is used here

from greenformer import auto_fact  # noqa: E402


def _svd(task: Task) -> Compressed:
    @torch.no_grad()
    def build(share: float) -> nn.Module:
        torch.manual_seed(0)  # its SVD is randomised
        network = task.network()
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        made: nn.Module = auto_fact(network, rank=share, solver="svd", submodules=layers[:-1])
        return made

    return meet_budget(task, build)


if __name__ == "__main__":
    main({"SVD": _svd})
