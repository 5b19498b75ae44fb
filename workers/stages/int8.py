"""The int8 forms of the networks, where a job asks for them: beside the float ones, judged against them."""

from collections.abc import Mapping
from pathlib import Path

from app.contract.report import Measured
from workers.engine.errors import EngineError
from workers.engine.formats import onnx_int8
from workers.engine.graph.network import Network
from workers.engine.measure import onnx_network
from workers.stages.context import Context
from workers.stages.verdict import lost, slowed


def named(name: str) -> str:
    """What the int8 form of a network is called."""
    return f"{name}-int8"


def write(context: Context, networks: Mapping[str, Network], exported: Mapping[str, Path]) -> dict[str, Path]:
    """The int8 form of every `.onnx` file, beside it; a network that has none is left out, with a notice."""
    if context.spec.quantize is None:
        return {}
    made = {}
    for name, network in networks.items():
        try:
            made[name] = _write(network, exported.get(name), named(name))
        except EngineError as error:
            context.notice(error.code, f"{name}: {error.detail}")
    return made


def remark(context: Context, candidates: Mapping[str, Measured]) -> None:
    """Tell of every int8 form that is slower than the float one, or worse beyond the noise."""
    for name, found in candidates.items():
        if found.quantized is None:
            continue
        file = f"{named(name)}.onnx"
        if slower := slowed(found, found.quantized):
            context.notice("int8_slower", f"{file} {slower}.")
        if worse := lost(found, found.quantized):
            context.notice("int8_worse", f"{file} {worse}.")


def _write(network: Network, source: Path | None, stem: str) -> Path:
    if source is None:
        raise EngineError("not_quantizable", "There is no ONNX form of it to quantize.")
    path = source.with_name(f"{stem}.onnx")
    onnx_int8.write(source, path)
    try:
        onnx_network.load(path, 1)(*network.examples())
    except Exception as error:  # ONNX Runtime has no errors of its own
        path.unlink()
        raise EngineError("not_quantizable", "ONNX Runtime cannot run its int8 form.") from error
    return path
