"""Whether an artifact opens where the user will open it, and still computes the same. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workers.engine import clean_process
from workers.engine.errors import EngineError
from workers.engine.rounding import relative

Format = Literal["pt2", "onnx", "int8", "huggingface"]
Arrays = Sequence[NDArray[np.generic]]

TOLERANCES: Mapping[Format, float] = {
    "pt2": 1e-5,  # the same kernels: only the order of sums over threads may differ
    "onnx": 1e-4,  # other kernels and fused operators: rounding adds up over the layers
    "huggingface": 1e-4,  # other kernels for a transposed weight, and for attention
    "int8": 2e-2,  # the last bit of a sum may take an activation to the next of 256 steps
}


@dataclass(frozen=True)
class Agreement:
    """The largest difference over `n` rows, as a fraction of the largest expected value."""

    max_relative_difference: float
    n: int


def agree(
    artifact: Path,
    file_format: Format,
    inputs: Path,
    expected: Path,
    tolerance: float | None = None,
    timeout: float = 600.0,
) -> Agreement:
    """Open an artifact with stock torch, ONNX Runtime or transformers in a clean process, run and compare.

    `inputs` and `expected` are `.npz` files with the inputs and outputs in order, rows first. "int8" is ONNX
    with integers inside, "huggingface" a folder in a zip. `tolerance` bounds the relative difference; by
    default `TOLERANCES` of the format. Raises `EngineError`: `artifact_unreadable` where the artifact does
    not open or run, `artifact_disagrees` where its outputs differ in number, shape or by more than the
    tolerance.
    """
    arguments = {"artifact": str(artifact), "inputs": str(inputs), "expected": str(expected)}
    probes = {"pt2": probe_pt2, "huggingface": probe_folder}
    try:
        agreement = Agreement(**clean_process.run(probes.get(file_format, probe_onnx), arguments, timeout))
    except clean_process.ProcessFailed as error:
        raise _unreadable(file_format) from error
    limit = TOLERANCES[file_format] if tolerance is None else tolerance
    if not agreement.max_relative_difference <= limit:
        raise _disagrees(
            f"differ by {agreement.max_relative_difference:.2g}, more than {limit:.2g}, relatively",
            file_format,
        )
    return agreement


def probe_pt2(artifact: str, inputs: str, expected: str) -> dict[str, float]:
    """Run a `.pt2` file as a user of torch would; called in the clean process."""
    import torch  # noqa: PLC0415  # for this format alone
    from torch.export.graph_signature import ConstantArgument, InputKind  # noqa: PLC0415
    from torch.utils import _pytree as pytree  # noqa: PLC0415

    program = torch.export.load(artifact)
    tensors = iter([torch.from_numpy(array) for array in _load(inputs)])
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    taken = [spec.arg.value if isinstance(spec.arg, ConstantArgument) else next(tensors) for spec in specs]
    args, kwargs = pytree.tree_unflatten(taken, program.call_spec.in_spec)
    with torch.inference_mode():
        outputs = program.module()(*args, **kwargs)
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    return _difference([leaf.numpy() for leaf in leaves], _load(expected))


def probe_onnx(artifact: str, inputs: str, expected: str) -> dict[str, float]:
    """Run an `.onnx` file as a user of ONNX Runtime would; called in the clean process."""
    import onnxruntime as ort  # noqa: PLC0415  # for this format alone

    session = ort.InferenceSession(artifact, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in session.get_inputs()]
    return _difference(session.run(None, dict(zip(names, _load(inputs), strict=True))), _load(expected))


def probe_folder(artifact: str, inputs: str, expected: str) -> dict[str, float]:
    """Open a packed Hugging Face folder as a user of transformers would; called in the clean process."""
    from workers.engine.formats.hf import opened  # noqa: PLC0415  # for this format alone

    return _difference(opened.outputs(Path(artifact), _load(inputs)), _load(expected))


def _load(path: str) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


def _difference(outputs: Arrays, expected: Arrays) -> dict[str, float]:
    shapes = [[array.shape for array in arrays] for arrays in (outputs, expected)]
    if shapes[0] != shapes[1]:
        raise _disagrees(f"have the shapes {shapes[0]} instead of {shapes[1]}")
    differences = [_relative(*pair) for pair in zip(outputs, expected, strict=True)]
    # numpy's maximum, unlike Python's, is not a number as soon as one of them is not
    return {"max_relative_difference": float(np.max(differences)), "n": len(expected[0])}


def _relative(output: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    truth = expected.astype(np.float64)
    apart = np.abs(output.astype(np.float64) - truth).max(initial=0.0)
    return relative(float(apart), float(np.abs(truth).max(initial=0.0)))


def _unreadable(file_format: str) -> EngineError:
    return EngineError(
        "artifact_unreadable",
        f"The {file_format} artifact could not be opened and run in a clean process.",
        **_way_out(file_format),
    )


def _disagrees(how: str, file_format: str = "") -> EngineError:
    return EngineError("artifact_disagrees", f"The outputs of the artifact {how}.", **_way_out(file_format))


def _way_out(file_format: str) -> dict[str, str]:
    if file_format == "int8":
        return {"hint": "Leave out `quantize`; the other artifacts are not affected.", "field": "quantize"}
    hint = "Leave this format out of `outputs`; the other formats are not affected."
    return {"hint": hint, "field": "outputs"}
