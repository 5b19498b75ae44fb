"""ONNX's operators by torch's: importing this package registers all of them."""

from workers.engine.formats.onnx_in.operators import (
    activations,
    convolution,
    indexing,
    normalisation,
    pointwise,
    products,
    quantisation,
    recurrent,
    reductions,
    resize,
    shapes,
)

__all__ = [
    "activations",
    "convolution",
    "indexing",
    "normalisation",
    "pointwise",
    "products",
    "quantisation",
    "recurrent",
    "reductions",
    "resize",
    "shapes",
]
