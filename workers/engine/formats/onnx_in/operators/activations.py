"""Activations."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Value, as_tensor


def _plain(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name)
    def apply(_: Call, x: Value) -> Tensor:
        return function(as_tensor(x))


_plain("Relu", torch.relu)
_plain("Sigmoid", torch.sigmoid)
_plain("Tanh", torch.tanh)
_plain("Softplus", F.softplus)
_plain("Softsign", lambda x: x / (1 + x.abs()))
_plain("HardSwish", F.hardswish)
_plain("Mish", F.mish)


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Value) -> Tensor:
    """A slope of alpha below zero."""
    return F.leaky_relu(as_tensor(x), call.get("alpha", 0.01))


@operator("PRelu")
def prelu(_: Call, x: Value, slope: Value) -> Tensor:
    """Learned slopes below zero, one for each channel or of any shape that broadcasts."""
    values, slopes = as_tensor(x), as_tensor(slope)
    lengths = list(slopes.shape)
    per_channel = values.ndim > 1 and len(lengths) == values.ndim - 1 and lengths[0] == values.shape[1]
    if slopes.numel() == 1 or (per_channel and slopes.numel() == lengths[0]):
        return F.prelu(values, slopes.reshape(-1))
    return torch.where(values < 0, values * slopes, values)


@operator("Elu")
def elu(call: Call, x: Value) -> Tensor:
    """alpha · (exp(x) − 1) below zero."""
    return F.elu(as_tensor(x), call.get("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Value) -> Tensor:
    """alpha · (exp(x / alpha) − 1) below zero."""
    return F.celu(as_tensor(x), call.get("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: Value) -> Tensor:
    """A scaled ELU."""
    gamma = call.get("gamma", 1.0507009873554805)
    return gamma * F.elu(as_tensor(x), call.get("alpha", 1.6732632423543772))


@operator("Gelu")
def gelu(call: Call, x: Value) -> Tensor:
    """x · Φ(x), exactly or by tanh."""
    return F.gelu(as_tensor(x), approximate=call.expect("approximate", "none", "tanh", default="none"))


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Value) -> Tensor:
    """alpha · x + beta, between 0 and 1."""
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(as_tensor(x))
    return torch.clamp(as_tensor(x) * alpha + beta, 0.0, 1.0)


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Value) -> Tensor:
    """x above alpha, else 0."""
    return F.threshold(as_tensor(x), call.get("alpha", 1.0), 0.0)


@operator("Shrink")
def shrink(call: Call, x: Value) -> Tensor:
    """Values beyond ±lambd, moved towards zero by the bias."""
    values, bias, bound = as_tensor(x), call.get("bias", 0.0), call.get("lambd", 0.5)
    zero = torch.zeros_like(values)
    return torch.where(values > bound, values - bias, torch.where(values < -bound, values + bias, zero))


@operator("Softmax")
def softmax(call: Call, x: Value) -> Tensor:
    """Over one axis; before version 13, over all axes from it on."""
    return _normalised(call, as_tensor(x), torch.softmax)


@operator("LogSoftmax")
def log_softmax(call: Call, x: Value) -> Tensor:
    """The logarithm of softmax."""
    return _normalised(call, as_tensor(x), torch.log_softmax)


def _normalised(call: Call, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    axis = call.get("axis", -1 if call.opset >= 13 else 1) % max(x.ndim, 1)
    if call.opset >= 13 or axis == x.ndim - 1:
        return function(x, axis)
    return function(x.flatten(axis), axis).reshape(x.shape)
