"""Every operator computes what it does in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workers.engine.formats.onnx_in.graphs import Array, agree, array, computes, model_of, node, saved
from workers.engine.formats.onnx_in.reader import read as _read  # noqa: F401  # registers the operators
from workers.engine.formats.onnx_in.registry import OPERATORS

X = array(2, 3, 8, 8)
SEQUENCE = array(2, 5, 4)
MATRIX = array(4, 6)
WHOLE = array(3, 4, dtype=np.int64)


def _int(*values: int) -> Array:
    return np.array(values, np.int64)


def _float(*values: float) -> Array:
    return np.array(values, np.float32)


def case(
    operator: str,
    inputs: list[Array | None],
    count: int = 1,
    constants: tuple[int, ...] = (),
    **attributes: Any,
) -> Any:
    """One call; the inputs at the places in `constants` are stored in the file."""
    opset = attributes.pop("opset", 20)
    label = "-".join([operator, *(f"{key}={value}" for key, value in attributes.items())])[:90]
    return pytest.param(operator, inputs, count, constants, attributes, opset, id=label)


_UNARY = [
    "Abs",
    "Neg",
    "Floor",
    "Ceil",
    "Exp",
    "Erf",
    "Sign",
    "Round",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "IsNaN",
    "Relu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Softsign",
    "HardSwish",
    "Mish",
    "LeakyRelu",
    "Elu",
    "Celu",
    "Selu",
    "Gelu",
    "HardSigmoid",
    "ThresholdedRelu",
    "Shrink",
    "Softmax",
    "LogSoftmax",
    "Identity",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Shape",
    "Size",
    "Flatten",
    "Dropout",
    "LpNormalization",
    "MeanVarianceNormalization",
    "IsInf",
    "Reciprocal",
]
_BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Sum",
    "Mean",
]
_REDUCE = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]

CASES = [
    *(case(name, [X]) for name in _UNARY),
    *(case(name, [np.abs(X) + 1]) for name in ("Sqrt", "Log", "Acosh", "ReduceLogSum")),
    *(case(name, [np.tanh(X)]) for name in ("Asin", "Acos", "Atanh")),
    *(case(name, [np.abs(X), array(3, 1, 8, seed=1)]) for name in _BINARY),
    *(case(name, [X, _float(0.5)], constants=(1,)) for name in _BINARY),
    *(case(name, [WHOLE, WHOLE + 1]) for name in ("Add", "Mul", "Equal", "Less", "Max")),
    *(case(name, [WHOLE > 0, WHOLE > 1]) for name in ("And", "Or", "Xor")),
    *(case(name, [WHOLE, WHOLE + 1]) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    case("Not", [WHOLE > 0]),
    case("BitwiseNot", [WHOLE]),
    case("Div", [WHOLE, _int(-2)], constants=(1,)),
    case("Mod", [WHOLE, _int(3)], constants=(1,)),
    case("Mod", [WHOLE, _int(3)], constants=(1,), fmod=1),
    case("Mod", [X, _float(0.7)], constants=(1,), fmod=1),
    case("IsInf", [np.where(X > 1, np.inf, X).astype(np.float32)], detect_negative=0),
    case("Where", [X > 0, X, array(8, seed=1)]),
    case("Clip", [X, _float(-0.5).reshape(()), _float(0.5).reshape(())], constants=(1, 2)),
    case("Clip", [X, None, _float(0.5).reshape(())], constants=(2,)),
    case("PRelu", [X, array(3, 1, 1)], constants=(1,)),
    case("PRelu", [X, array(8, 8)], constants=(1,)),
    case("Elu", [X], alpha=0.3),
    case("Selu", [X], alpha=1.2, gamma=0.9),
    case("Gelu", [X], approximate="tanh"),
    case("HardSigmoid", [X], alpha=1 / 6),
    case("Shrink", [X], lambd=0.3, bias=0.2),
    case("Softmax", [X], axis=1),
    case("Softmax", [X], opset=11, axis=1),
    case("LogSoftmax", [X], opset=12, axis=2),
    case("Conv", [X, array(4, 3, 3, 3), array(4)], constants=(1, 2), pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", [X, array(4, 3, 3, 3)], constants=(1,), pads=[0, 1, 2, 1]),
    case("Conv", [X, array(3, 1, 3, 3)], constants=(1,), group=3, dilations=[2, 1]),
    *(case("Conv", [X, array(4, 3, 3, 2)], constants=(1,), auto_pad=mode, strides=[3, 2])
      for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    case("Conv", [SEQUENCE, array(4, 5, 3)], constants=(1,), pads=[1, 1]),
    case("Conv", [array(1, 2, 4, 5, 6), array(3, 2, 2, 2, 2)], constants=(1,)),
    case("Conv", [X, array(4, 3, 3, 3)]),
    case("ConvTranspose", [X, array(3, 4, 3, 3), array(4)], constants=(1, 2), strides=[2, 2], pads=[1] * 4,
         output_padding=[1, 1]),
    case("ConvTranspose", [X, array(3, 4, 3, 3)], constants=(1,), strides=[2, 2], pads=[0, 1, 1, 0]),
    case("ConvTranspose", [X, array(3, 4, 3, 3)], constants=(1,), strides=[2, 2], output_shape=[16, 17]),
    case("ConvTranspose", [X, array(3, 4, 3, 3)], constants=(1,), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", [SEQUENCE, array(5, 2, 3)], constants=(1,), group=1),
    case("MaxPool", [X], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    case("MaxPool", [X], kernel_shape=[3, 3], pads=[0, 1, 2, 1], ceil_mode=1, strides=[2, 2]),
    case("MaxPool", [X], kernel_shape=[2, 2], dilations=[2, 2]),
    case("MaxPool", [X], kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2]),
    case("AveragePool", [X], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    case("AveragePool", [X], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", [X], kernel_shape=[3, 2], pads=[0, 1, 2, 0]),
    case("AveragePool", [X], kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2]),
    case("AveragePool", [X], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    case("BatchNormalization", [X, array(3), array(3, seed=1), array(3, seed=2), np.abs(array(3)) + 1],
         constants=(1, 2, 3, 4)),
    case("InstanceNormalization", [X, array(3), array(3, seed=1)], constants=(1, 2)),
    case("LayerNormalization", [X, array(8), array(8, seed=1)], constants=(1, 2)),
    case("LayerNormalization", [X, array(8, 8)], constants=(1,), axis=2),
    case("GroupNormalization", [array(2, 6, 4), array(2), array(2)], constants=(1, 2), num_groups=2),
    case("GroupNormalization", [array(2, 6), array(6), array(6)], constants=(1, 2), num_groups=3, opset=21),
    case("RMSNormalization", [X, array(8)], constants=(1,), opset=23),
    case("LpNormalization", [X], p=1, axis=2),
    case("LRN", [X], size=3, alpha=0.1),
    *(case(f"Reduce{name}", [X, _int(1, -1)], constants=(1,)) for name in _REDUCE),
    *(case(f"Reduce{name}", [X], keepdims=0) for name in _REDUCE),
    case("ReduceMean", [X], opset=13, axes=[1], keepdims=0),
    case("ReduceSum", [X], noop_with_empty_axes=1),
    case("ReduceSum", [WHOLE, _int(1)], constants=(1,)),
    *(case(f"Arg{name}", [WHOLE], axis=1, select_last_index=1) for name in ("Max", "Min")),
    *(case(f"Arg{name}", [WHOLE], axis=1) for name in ("Max", "Min")),
    case("ArgMax", [X], axis=-1, keepdims=0),
    case("MatMul", [MATRIX, array(6, 5)], constants=(1,)),
    case("MatMul", [array(2, 3, 4, 6), array(3, 6, 5)], constants=(1,)),
    case("MatMul", [MATRIX, array(6, seed=1)], constants=(1,)),
    case("MatMul", [array(6), array(6, 5)], constants=(1,)),
    case("Gemm", [MATRIX, array(5, 6), array(5)], constants=(1, 2), transB=1),
    case("Gemm", [MATRIX, array(6, 5), array(1, 5)], constants=(1, 2), alpha=0.5, beta=2.0),
    case("Gemm", [MATRIX, array(6, 5), array(4, 1)], constants=(1, 2)),
    case("Gemm", [array(6, 4), array(6, 5)], constants=(1,), transA=1),
    case("Einsum", [SEQUENCE, array(4, 3)], constants=(1,), equation="bsi,ij->bsj"),
    case("Gather", [X, _int(0, 2, -1)], constants=(1,), axis=2),
    case("Gather", [X, np.array(1, np.int64)], constants=(1,), axis=1),
    case("Gather", [array(10, 4), np.abs(WHOLE)], constants=(0,)),
    case("Gather", [X, np.abs(WHOLE)], constants=(0,), axis=3),
    case("GatherElements", [X, np.abs(array(2, 3, 8, 2, dtype=np.int64))], axis=3),
    case("GatherElements", [X, array(2, 3, 2, 8, dtype=np.int64)], constants=(1,), axis=2),
    case("GatherND", [X, _int(0, 1, 1, 2).reshape(2, 2)], constants=(1,)),
    case("ScatterElements", [X, array(2, 3, 2, 8, dtype=np.int64), array(2, 3, 2, 8)], constants=(1,), axis=2,
         reduction="add"),
    case("ScatterElements", [MATRIX, _int(1, 0, 2).reshape(1, 3), array(1, 3)], constants=(1,), axis=1),
    case("ScatterND", [X, _int(0, 1).reshape(2, 1), array(2, 3, 8, 8, seed=3)], constants=(1,)),
    case("Slice", [X, _int(1, 0), _int(5, 1 << 62), _int(2, 3), _int(2, 3)], constants=(1, 2, 3, 4)),
    case("Slice", [X, _int(-1), _int(-(1 << 62)), _int(3), _int(-1)], constants=(1, 2, 3, 4)),
    case("Slice", [X, _int(6), _int(1), _int(2), _int(-2)], constants=(1, 2, 3, 4)),
    case("Slice", [X, _int(-3), _int(-1), _int(3)], constants=(1, 2, 3)),
    case("OneHot", [WHOLE, _int(4), _float(0, 1)], constants=(1, 2)),
    case("OneHot", [WHOLE, _int(4), _float(2, 5)], constants=(1, 2), axis=1),
    case("Trilu", [X]),
    case("Trilu", [X, np.array(1, np.int64)], constants=(1,), upper=0),
    *(case("CumSum", [X, np.array(2, np.int64)], constants=(1,), exclusive=e, reverse=r)
      for e in (0, 1) for r in (0, 1)),
    case("TopK", [X, _int(3)], 2, constants=(1,), axis=-1),
    case("TopK", [X, _int(2)], 2, constants=(1,), axis=2, largest=0),
    case("ReverseSequence", [array(5, 3, 2), _int(5, 2, 3)], constants=(1,)),
    case("ReverseSequence", [array(3, 5, 2), _int(5, 2, 3)], constants=(1,), time_axis=1, batch_axis=0),
    case("Reshape", [X, _int(0, -1, 4)], constants=(1,)),
    case("Flatten", [X], axis=2),
    case("Flatten", [X], axis=0),
    case("Transpose", [X], perm=[0, 2, 3, 1]),
    case("Transpose", [MATRIX]),
    case("Unsqueeze", [X, _int(1, -1)], constants=(1,)),
    case("Squeeze", [array(3, 1, 4, 1), _int(1)], constants=(1,)),
    case("Squeeze", [array(3, 1, 4, 1)]),
    case("Concat", [X, array(2, 3, 8, 2)], axis=3),
    case("Split", [X, _int(3, 5)], 2, constants=(1,), axis=2),
    case("Split", [X], 3, axis=3, num_outputs=3),
    case("Split", [X], 2, axis=2, opset=12),
    case("Expand", [array(3, 1), _int(2, 1, 4)], constants=(1,)),
    case("Tile", [MATRIX, _int(2, 3)], constants=(1,)),
    case("Cast", [X], to=7),
    case("Cast", [WHOLE], to=1),
    case("CastLike", [WHOLE, X]),
    case("EyeLike", [MATRIX], k=1),
    case("Pad", [X, _int(0, 0, 1, 2, 0, 0, 0, 3), _float(1.5).reshape(())], constants=(1, 2)),
    case("Pad", [X, _int(1, 2), None, _int(-1)], constants=(1, 3), mode="reflect"),
    case("Pad", [X, _int(0, 0, 1, 2, 0, 0, 3, 0)], constants=(1,), mode="edge"),
    case("Pad", [X, _int(0, 0, -1, 0, 0, 0, 0, -2)], constants=(1,)),
    case("DepthToSpace", [array(2, 8, 3, 3)], blocksize=2),
    case("DepthToSpace", [array(2, 8, 3, 3)], blocksize=2, mode="CRD"),
    case("SpaceToDepth", [X], blocksize=2),
    *(case("Resize", [X, None, _float(1, 1, 2, 2)], constants=(2,), mode=mode,
           coordinate_transformation_mode=where)
      for mode in ("nearest", "linear", "cubic")
      for where in ("half_pixel", "align_corners", "pytorch_half_pixel")),
    *(case("Resize", [X, None, None, _int(2, 3, 5, 11)], constants=(3,), mode=mode,
           coordinate_transformation_mode=where)
      for mode in ("nearest", "linear") for where in ("half_pixel", "align_corners", "asymmetric")),
    *(case("Resize", [X, None, _float(1, 1, 0.6, 1.7)], constants=(2,), mode="nearest", nearest_mode=rounding,
           coordinate_transformation_mode="asymmetric")
      for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
    case("Resize", [X, _float(1, 1, 2, 3)], constants=(1,), opset=10, mode="nearest"),
    case("Upsample", [X, _float(1, 1, 2, 3)], constants=(1,), opset=9, mode="nearest"),
    case("DequantizeLinear", [array(4, 6, dtype=np.int8), array(4), array(4, dtype=np.int8)],
         constants=(0, 1, 2), axis=0),
    case("QuantizeLinear", [MATRIX, _float(0.1).reshape(()), np.array(3, np.uint8)], constants=(0, 1, 2)),
]  # fmt: skip


_each_case = pytest.mark.parametrize(
    ("operator", "inputs", "count", "constants", "attributes", "opset"), CASES
)


@_each_case
def test_an_operator_computes_what_it_does_in_onnx_runtime(
    operator: str, inputs: Any, count: int, constants: Any, attributes: Any, opset: int, tmp_path: Path
) -> None:
    computes(*_file(operator, inputs, count, constants, attributes, opset, tmp_path))


@pytest.mark.slow
@_each_case
def test_an_operator_can_be_traced(
    operator: str, inputs: Any, count: int, constants: Any, attributes: Any, opset: int, tmp_path: Path
) -> None:
    agree(*_file(operator, inputs, count, constants, attributes, opset, tmp_path))


def _file(
    operator: str,
    inputs: list[Array | None],
    count: int,
    constants: tuple[int, ...],
    attributes: dict[str, Any],
    opset: int,
    folder: Path,
) -> tuple[Path, dict[str, Array]]:
    names = [f"x{place}" if value is not None else "" for place, value in enumerate(inputs)]
    stored = {names[place]: value for place in constants if (value := inputs[place]) is not None}
    given = {
        name: value
        for name, value in zip(names, inputs, strict=True)
        if value is not None and name not in stored
    }
    outputs = [f"y{place}" for place in range(count)]
    nodes = [node(operator, names, outputs, **attributes)]
    if not given:  # of constants alone: something has to come from outside
        given = {"x": array(3)}
        nodes.append(node("Identity", ["x"], ["z"]))
        outputs.append("z")
    # of several inputs the first axes need not be one batch
    model = model_of(nodes, given, outputs, stored, opset=opset, variable=False)
    return saved(model, folder), given


def test_every_operator_that_is_understood_is_tested() -> None:
    elsewhere = {"Constant", "ConstantOfShape", "Range", "NonZero", "LSTM", "GRU", "RNN", "Scatter"}
    known = {name for name in OPERATORS if not name.islower()}
    assert known - elsewhere == {case.values[0] for case in CASES}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    begin=st.integers(0, 2),
    end=st.integers(0, 2),
    length=st.integers(8, 13),
)
def test_convolutions_of_all_kinds_agree(
    kernel: int, stride: int, dilation: int, begin: int, end: int, length: int, tmp_path: Path
) -> None:
    x, weight = array(2, 3, length), array(4, 3, kernel)
    conv = node("Conv", ["x", "w"], ["y"], strides=[stride], dilations=[dilation], pads=[begin, end])
    computes(saved(model_of([conv], {"x": x}, ["y"], {"w": weight}, variable=False), tmp_path), {"x": x})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(-12, 12), end=st.integers(-12, 12), step=st.sampled_from([-3, -2, -1, 1, 2, 3]))
def test_slices_of_all_kinds_agree(start: int, end: int, step: int, tmp_path: Path) -> None:
    x = array(2, 9)
    bounds = {"s": _int(start), "e": _int(end), "a": _int(1), "p": _int(step)}
    model = model_of([node("Slice", ["x", *bounds], ["y"])], {"x": x}, ["y"], bounds, variable=False)
    computes(saved(model, tmp_path), {"x": x})
