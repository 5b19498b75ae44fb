"""A packed Hugging Face folder of ours as its user opens it."""

import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from workers.engine.formats.hf.library import library
from workers.engine.formats.hf.signatures import ENCODERS, inputs_of, keywords_of, outputs_of

Arrays = Sequence[NDArray[Any]]


def model_in(artifact: Path) -> Any:
    """The model: by the folder's own `load.py` where it has one, else by `from_pretrained`."""
    transformers = library()
    with tempfile.TemporaryDirectory(dir=artifact.parent) as folder:
        with zipfile.ZipFile(artifact) as packed:
            packed.extractall(folder)
        if (Path(folder) / "load.py").exists():
            return _loader(Path(folder) / "load.py").load()
        [architecture] = json.loads((Path(folder) / "config.json").read_text())["architectures"]
        return getattr(transformers, architecture).from_pretrained(folder, local_files_only=True).eval()


def outputs(artifact: Path, arrays: Arrays) -> list[NDArray[Any]]:
    """What the model makes of its inputs in order."""
    model = model_in(artifact)
    architecture, model_type = type(model).__name__, model.config.model_type
    names = [spec.name for spec in inputs_of(model_type, architecture, model.config)]
    called = attrgetter(ENCODERS[architecture])(model) if architecture in ENCODERS else model
    given = dict(zip(names, map(torch.from_numpy, arrays), strict=True))
    with torch.inference_mode():
        found = called(**given, **keywords_of(model_type, architecture))
    return [found[name].numpy() for name in outputs_of(architecture)]


def _loader(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("load", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
