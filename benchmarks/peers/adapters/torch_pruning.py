"""torch-pruning: a control that is no decomposition. Whole channels go, those of the least weight in every
layer."""

import torch_pruning
from torch import nn

from benchmarks.peers.worker import Compressed, Task, main, meet_budget


def _prune(task: Task) -> Compressed:
    def build(network: nn.Module, share: float) -> nn.Module:
        pruner = torch_pruning.pruner.BasePruner(
            network,
            task.example(),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=1 - share,
            ignored_layers=[network.get_submodule(task.head())],
        )
        pruner.step()
        return network

    return meet_budget(task, build)


if __name__ == "__main__":
    main({"channel pruning": _prune})
