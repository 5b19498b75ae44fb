"""fasterai: Tucker-2 or SVD of convolutions, each with the SVD of linear layers; one share of ranks for all layers."""

from collections.abc import Callable

from fasterai.misc.conv_decomposer import Conv_Decomposer
from fasterai.misc.fc_decomposer import FC_Decomposer
from torch import nn

from benchmarks.peers.worker import Compressed, Method, Task, main, meet_budget


def _method(name: str) -> Method:
    def compress(task: Task) -> Compressed:
        return meet_budget(task, _builder(task, name))

    return compress


def _builder(task: Task, name: str) -> Callable[[float], nn.Module]:
    head = [path for path, module in task.network().named_modules() if isinstance(module, nn.Linear)][-1:]

    def build(share: float) -> nn.Module:
        convolutions = Conv_Decomposer().decompose(task.network(), percent_removed=1 - share, method=name)
        made: nn.Module = FC_Decomposer().decompose(convolutions, percent_removed=1 - share, exclude=head)
        return made

    return build


if __name__ == "__main__":
    main({"Tucker": _method("tucker"), "SVD": _method("svd")})
