"""An uploaded folder of timm's as a network: its weights, and the name of their architecture."""

from importlib.util import find_spec
from typing import Any

import torch

from workers.engine.admit.archive import Archive
from workers.engine.admit.hf_fields import Config
from workers.engine.admit.hf_folder import Folder
from workers.engine.errors import Rejected
from workers.engine.formats.hf import weights
from workers.engine.formats.hf.library import offline
from workers.engine.formats.imported import Imported
from workers.engine.graph.network import Dimension, Input, trace


def imported(folder: Folder, archive: Archive) -> Imported:
    """The network, in evaluation mode and single precision, on the CPU; its input is called `x`.

    timm gets a name that it lists, and numbers, never a file. Raises `Rejected`: `timm_missing`,
    `unknown_architecture`, `missing_weights`, `unexpected_weights`, `shapes_differ`, `integer_weights`, and
    whatever timm does.
    """
    config = folder.config
    create = _creator(config)
    with torch.device("meta"):
        weights.demand_size(create(), folder.shards)
    model = create()
    found = weights.read(folder.shards, archive)
    weights.demand_agreement(_compared(model, found))
    model.load_state_dict(found)
    batch = Dimension("batch")
    network = trace(model.eval(), [Input("x", torch.float32, (batch, *config.fields["input_size"]))])
    return Imported(network, tuple(weights.remarks(folder.shards, ())))


def _creator(config: Config) -> Any:
    """Makes the model with weights at random."""
    offline()
    if find_spec("timm") is None:
        raise Rejected(
            "timm_missing",
            "This worker cannot read models of timm: the package is not installed.",
            hint="Export the model with torch.export and upload the .pt2, or install rankfold[timm].",
        )
    import timm  # noqa: PLC0415  # an extra

    if config.architecture not in timm.list_models():
        raise Rejected(
            "unknown_architecture",
            f"timm {timm.__version__} has no architecture {config.architecture}.",
            hint="Export the model with torch.export and upload the .pt2.",
            field="architecture",
        )
    given = {name: value for name, value in config.fields.items() if name != "input_size"}
    return lambda: timm.create_model(config.architecture, pretrained=False, **given)


def _compared(model: Any, found: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    """What differs between a model's tensors and a file's, as transformers says it."""
    expected = model.state_dict()
    return {
        "missing_keys": [name for name in expected if name not in found],
        "unexpected_keys": [name for name in found if name not in expected],
        "mismatched_keys": [
            (name,) for name in expected if name in found and found[name].shape != expected[name].shape
        ],
        "error_msgs": [],
    }
