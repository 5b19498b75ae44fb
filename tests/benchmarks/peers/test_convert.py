"""An ATen graph becomes stock modules that compute the same."""

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from benchmarks.peers import convert, counter
from benchmarks.peers.convert import Disagreement, to_modules
from tests.workers.engine.networks import image_network
from workers.engine.graph.network import Network
from workers.engine.measure import cost


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8))
        self.same = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x))
        logits: Tensor = self.head((y + self.same(y)).mean((2, 3)))
        return logits


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 5, bias=False),
        )


class Twice(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.shared(F.gelu(self.shared(x))))


def network(module: nn.Module) -> Network:
    """With statistics and affine parameters that no default would hit."""
    torch.manual_seed(0)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 0.6)
    return image_network(module)


def converted(source: Network) -> GraphModule:
    return to_modules(source.module, source.examples(2)[0])


@pytest.mark.parametrize("module", [Residual(), Plain(), Twice()], ids=lambda module: type(module).__name__)
def test_outputs_agree_for_another_batch(module: nn.Module) -> None:
    source = network(module)
    [x] = source.examples(5)
    torch.testing.assert_close(converted(source)(x), source(x), atol=1e-5, rtol=0)


def test_layers_have_their_names_and_settings() -> None:
    layers = dict(converted(network(Residual())).named_modules())
    same = layers["same"]
    assert isinstance(same, nn.Conv2d)
    assert (same.padding, same.dilation, same.groups) == ("same", (2, 2), 2)
    assert isinstance(layers["stem.0"], nn.Conv2d)
    assert layers["stem.0"].stride == (2, 2)
    assert layers["stem.0"].bias is None
    assert isinstance(layers["stem.1"], nn.BatchNorm2d)
    assert isinstance(layers["head"], nn.Linear)


def test_what_has_no_weights_becomes_modules_too() -> None:
    kinds = {type(module) for module in converted(network(Plain())).modules()}
    assert kinds >= {nn.ReLU, nn.MaxPool2d, nn.Dropout, nn.AdaptiveAvgPool2d}


def test_a_weight_that_is_used_twice_stays_one() -> None:
    module = converted(network(Twice()))
    assert len(list(module.parameters())) == 2
    targets = [str(node.target) for node in module.graph.nodes]
    assert "aten.gelu.default" in targets  # it has no module here


def test_nothing_is_shared_with_the_source() -> None:
    source = network(Residual())
    [x] = source.examples(2)
    before = source(x)
    for parameter in converted(source).parameters():
        parameter.data.zero_()
    torch.testing.assert_close(source(x), before)


def test_modules_that_compute_something_else_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(convert._PLAIN, torch.ops.aten.relu.default, lambda _: nn.Tanh())
    with pytest.raises(Disagreement, match="outputs differ"):
        converted(network(Residual()))


@pytest.mark.parametrize("module", [Residual(), Plain()], ids=lambda module: type(module).__name__)
def test_both_counters_count_the_same(module: nn.Module) -> None:
    source = network(module)
    made, counted = converted(source), cost.count(source)
    assert counter.macs(made, source.examples(1)[0]) == counted.macs > 0
    assert counter.parameters(made) == counted.parameters
