"""fasterai: Tucker-2 or SVD of convolutions, each with the SVD of linear layers; one share of ranks for all
layers."""

from fasterai.misc.conv_decomposer import Conv_Decomposer
from fasterai.misc.fc_decomposer import FC_Decomposer
from torch import nn

from benchmarks.peers.worker import Compressed, Method, Task, main, meet_budget


def _method(name: str) -> Method:
    def compress(task: Task) -> Compressed:
        def build(network: nn.Module, share: float) -> nn.Module:
            removed, kept = 1 - share, task.left_alone()
            convolutions = Conv_Decomposer().decompose(network, removed, method=name, exclude=kept)
            made: nn.Module = FC_Decomposer().decompose(convolutions, removed, exclude=kept)
            return made

        return meet_budget(task, build)

    return compress


if __name__ == "__main__":
    main({"Tucker": _method("tucker"), "SVD": _method("svd")})
