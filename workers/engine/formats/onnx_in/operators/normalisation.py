"""Normalisations."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Value, as_tensor

_MOST_NEIGHBOURS = 64


@operator("BatchNormalization", limits="in inference")
def batch_norm(call: Call, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Tensor:
    """By running statistics."""
    call.expect("training_mode", 0, default=0)
    if call.wants > 1:
        raise call.unsupported("it gives out its statistics")
    values = as_tensor(x)
    statistics = as_tensor(mean), as_tensor(variance)
    return F.batch_norm(values, *statistics, as_tensor(scale), as_tensor(bias), False, 0.1, _epsilon(call))


@operator("InstanceNormalization")
def instance_norm(call: Call, x: Value, scale: Value, bias: Value) -> Tensor:
    """Every channel of every example by its own statistics."""
    return F.instance_norm(as_tensor(x), None, None, as_tensor(scale), as_tensor(bias), eps=_epsilon(call))


@operator("LayerNormalization", limits="without the outputs Mean and InvStdDev")
def layer_norm(call: Call, x: Value, scale: Value, bias: Value | None = None) -> Tensor:
    """Over all axes from one on."""
    if call.wants > 1:
        raise call.unsupported("it gives out its statistics")
    values = as_tensor(x)
    shape = list(values.shape[call.get("axis", -1) % values.ndim :])
    offset = None if bias is None else as_tensor(bias).expand(shape)
    return F.layer_norm(values, shape, as_tensor(scale).expand(shape), offset, _epsilon(call))


@operator("RMSNormalization")
def rms_norm(call: Call, x: Value, scale: Value) -> Tensor:
    """By the root of the mean square over all axes from one on."""
    values = as_tensor(x)
    shape = list(values.shape[call.get("axis", -1) % values.ndim :])
    return F.rms_norm(values, shape, as_tensor(scale).expand(shape), _epsilon(call))


@operator("GroupNormalization")
def group_norm(call: Call, x: Value, scale: Value, bias: Value) -> Tensor:
    """Groups of channels by their own statistics; before version 21 scale and bias belong to groups."""
    values, groups = as_tensor(x), call.get("num_groups", 1)
    per_channel = [as_tensor(scale), as_tensor(bias)]
    if call.opset < 21:
        per_channel = [each.repeat_interleave(values.shape[1] // groups) for each in per_channel]
    return F.group_norm(values, groups, per_channel[0], per_channel[1], _epsilon(call))


@operator("LpNormalization")
def lp_normalisation(call: Call, x: Value) -> Tensor:
    """By the sum of magnitudes, or by the root of the sum of squares, over one axis."""
    values, axis = as_tensor(x), call.get("axis", -1)
    order = call.expect("p", 1, 2, default=2)
    result: Tensor = values / torch.linalg.vector_norm(values, float(order), [axis], True)
    return result


@operator("MeanVarianceNormalization")
def mean_variance_normalisation(call: Call, x: Value) -> Tensor:
    """To mean 0 and variance 1."""
    values, axes = as_tensor(x), list(call.get("axes", (0, 2, 3)))
    centred = values - values.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@operator("LRN")
def local_response_norm(call: Call, x: Value) -> Tensor:
    """By the squares of neighbouring channels: `size` of them, as many before as after where it is odd."""
    values, size = as_tensor(x), call.get("size", 1)
    if not 0 < size <= _MOST_NEIGHBOURS:
        raise call.unsupported(f"size = {size}")
    before = (size - 1) // 2
    squares = F.pad(values.square().unsqueeze(1), [0, 0] * (values.ndim - 2) + [before, size - 1 - before])
    total = (
        torch.stack([squares.narrow(2, place, values.shape[1]) for place in range(size)]).sum(0).squeeze(1)
    )
    alpha, beta, bias = call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0)
    result: Tensor = values / (bias + alpha / size * total).pow(beta)
    return result


def _epsilon(call: Call) -> float:
    epsilon = call.get("epsilon", 1e-5)
    return epsilon if math.isfinite(epsilon) else 1e-5
