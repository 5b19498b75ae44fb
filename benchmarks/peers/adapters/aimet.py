"""aimet-torch: spatial SVD, and weight SVD, with its greedy choice of ranks.

Its scores are the mean probability of the right class on the calibration rows: accuracies tie, and at a tie
its greedy choice cuts all layers at once. It has a budget of multiply-accumulates but may miss it, so after
it was asked for the budget its target is searched, from the scores that it saved: they are most of the time
it takes.
"""

import logging
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import torch
from torch import nn

from benchmarks.peers.worker import Compressed, Method, Task, main, meet_budget, pretend

# Plots, its channel pruning and its monotonic fit, none of them used; of torchvision there is no build for
# every torch.
pretend("torchvision", "bokeh", "holoviews", "hvplot", "pandas", "sklearn", "osqp", "psutil")

from aimet_torch.common.defs import (  # noqa: E402
    CompressionScheme,
    CostMetric,
    GreedySelectionParameters,
    RankSelectScheme,
)
from aimet_torch.compress import ModelCompressor  # noqa: E402
from aimet_torch.defs import SpatialSvdParameters, WeightSvdParameters  # noqa: E402

_SCORES = Path("data/greedy_selection_eval_scores_dict.pkl")  # where it saves them, in the working folder


def _greedy(scheme: CompressionScheme) -> Method:
    def compress(task: Task) -> Compressed:
        _SCORES.unlink(missing_ok=True)

        def score(module: nn.Module, *_: object, **__: object) -> float:
            x, labels = task.rows
            with torch.no_grad():
                return float(module(x).softmax(1).gather(1, labels[:, None]).double().mean())

        def build(network: nn.Module, target: float) -> nn.Module:
            saved = str(_SCORES) if _SCORES.exists() else None
            greedy = GreedySelectionParameters(Decimal(str(target)), saved_eval_scores_dict=saved)
            made, _ = ModelCompressor.compress_model(
                network,
                eval_callback=score,
                eval_iterations=None,
                input_shape=(1, *task.shape),
                compress_scheme=scheme,
                cost_metric=CostMetric.mac,
                parameters=_parameters(scheme, greedy),
            )
            return made

        found = meet_budget(task, build, first=task.keep)
        asked, searched = found.calls[0], found.calls[1:]
        seconds = asked.seconds + (found.seconds if found.seconds != asked.seconds else 0.0)
        remark = f"asked for {task.keep:g} it kept {asked.kept:.2f}" if searched else ""
        return replace(found, seconds=seconds, remark=remark)

    return compress


def _parameters(scheme: CompressionScheme, greedy: GreedySelectionParameters) -> object:
    if scheme is CompressionScheme.spatial_svd:
        spatial = SpatialSvdParameters
        return spatial(spatial.Mode.auto, spatial.AutoModeParams(greedy))
    weight = WeightSvdParameters
    return weight(weight.Mode.auto, weight.AutoModeParams(RankSelectScheme.greedy, greedy))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(
        {
            "spatial SVD": _greedy(CompressionScheme.spatial_svd),
            "weight SVD": _greedy(CompressionScheme.weight_svd),
        }
    )
