"""Products of matrices. Those by a stored matrix were made layers of before (`layers`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Value, as_tensor


@operator("MatMul")
def matmul(_: Call, x: Value, y: Value) -> Tensor:
    """A product of matrices or of stacks of them."""
    return torch.matmul(as_tensor(x), as_tensor(y))


@operator("Gemm")
def gemm(call: Call, x: Value, y: Value, z: Value | None = None) -> Tensor:
    """alpha · X Y + beta · Z, either matrix transposed or not."""
    first, second = as_tensor(x), as_tensor(y)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    product = (first.t() if call.get("transA", 0) else first) @ (
        second.t() if call.get("transB", 0) else second
    )
    product = product if alpha == 1 else product * alpha
    if z is None or beta == 0:
        return product
    return product + (as_tensor(z) if beta == 1 else as_tensor(z) * beta)


@operator("Einsum")
def einsum(call: Call, *values: Value) -> Tensor:
    """Sums of products over named axes."""
    return torch.einsum(call.get("equation", ""), *map(as_tensor, values))


@operator("linear")
def linear(_: Call, x: Value, weight: Value, bias: Value | None = None) -> Tensor:
    """x Wᵀ + b: what products by a stored matrix become."""
    return F.linear(as_tensor(x), as_tensor(weight), None if bias is None else as_tensor(bias))


@operator("embedding")
def embedding(_: Call, indices: Value, table: Value) -> Tensor:
    """Rows of a stored table: what a Gather from a matrix becomes."""
    return F.embedding(as_tensor(indices), as_tensor(table))
