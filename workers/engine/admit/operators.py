"""The operators that an uploaded graph may call; everything else is refused by name.

Left out on purpose: what reads files or raw storage, what hands out uninitialised memory (`empty`), what
draws random numbers, and what has a result whose shape depends on the data (`nonzero`, `unique`).
"""

import re

from workers.engine.admit.archive import show
from workers.engine.errors import Rejected

_LAYERS = """
    linear addmm addmv baddbmm bmm mm mv matmul bilinear einsum dot tensordot conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d convolution lstm gru rnn_tanh rnn_relu lstm_cell
    gru_cell rnn_tanh_cell rnn_relu_cell embedding one_hot scaled_dot_product_attention batch_norm
    native_batch_norm instance_norm layer_norm native_layer_norm group_norm native_group_norm rms_norm
    dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout
    _native_batch_norm_legit_no_training _scaled_dot_product_flash_attention_for_cpu outer
"""
_ACTIVATIONS = """
    relu relu6 prelu leaky_relu rrelu elu selu celu gelu silu mish glu softplus softshrink hardshrink
    hardtanh hardsigmoid hardswish sigmoid log_sigmoid tanh threshold softmax _softmax log_softmax
    _log_softmax logsumexp
"""
_POOLING = """
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d
    avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    grid_sampler grid_sampler_2d affine_grid_generator pixel_shuffle pixel_unshuffle channel_shuffle
    native_channel_shuffle im2col col2im pad constant_pad_nd reflection_pad1d reflection_pad2d
    reflection_pad3d replication_pad1d replication_pad2d replication_pad3d _adaptive_avg_pool3d
"""
_POINTWISE = """
    abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
    bitwise_xor ceil clamp clamp_max clamp_min clip copysign cos cosh deg2rad div divide eq erf erfc exp
    exp2 expm1 floor floor_divide fmod frac ge greater greater_equal gt hypot isfinite isinf isnan le lerp
    less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor lt
    masked_fill maximum minimum mul multiply nan_to_num ne neg negative not_equal pow rad2deg reciprocal
    remainder round rsqrt rsub sgn sign sin sinc sinh sqrt square sub subtract tan true_divide trunc where
    xlogy logit __and__ __or__ __xor__
"""
_REDUCTIONS = """
    all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum logcumsumexp
    max mean median min norm linalg_vector_norm frobenius_norm prod sort std std_mean sum topk var var_mean
    cosine_similarity cdist linalg_norm nansum nanmean diff
"""
_SHAPES = """
    alias broadcast_tensors broadcast_to cat chunk clone column_stack concat concatenate contiguous _conj
    detach diag diag_embed diagonal expand expand_as flatten flip gather hstack index index_add index_fill
    index_put index_select masked_scatter meshgrid movedim narrow permute ravel repeat repeat_interleave
    reshape _reshape_copy _unsafe_view reshape_as roll rot90 scatter scatter_add scatter_reduce select
    select_scatter slice slice_scatter split split_with_sizes squeeze stack swapaxes swapdims t
    take_along_dim tensor_split tile transpose tril triu type_as unbind unflatten unfold unsafe_chunk
    unsafe_split unsafe_split_with_sizes unsqueeze view view_as vstack to _to_copy lift_fresh
    lift_fresh_copy view_copy permute_copy expand_copy transpose_copy squeeze_copy unsqueeze_copy slice_copy
    select_copy sym_size sym_numel sym_stride mT numpy_T narrow_copy _unsafe_index fill
"""
_CREATION = """
    arange eye full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor zeros
    zeros_like tril_indices triu_indices
"""
_IN_PLACE = """
    add_ sub_ mul_ div_ pow_ clamp_ clamp_min_ clamp_max_ neg_ exp_ sqrt_ rsqrt_ abs_ sigmoid_ tanh_ relu_
    relu6_ leaky_relu_ elu_ selu_ celu_ silu_ mish_ hardtanh_ hardswish_ hardsigmoid_ threshold_ copy_ fill_
    zero_ masked_fill_ masked_scatter_ index_put_ index_fill_ index_add_ scatter_ scatter_add_ squeeze_
    unsqueeze_ transpose_ t_ tril_ triu_ detach_ dropout_ logical_not_ logical_and_ logical_or_ bitwise_not_
    bitwise_and_ bitwise_or_ floor_ ceil_ round_ square_
"""
ATEN = frozenset(
    " ".join(
        (_LAYERS, _ACTIVATIONS, _POOLING, _POINTWISE, _REDUCTIONS, _SHAPES, _CREATION, _IN_PLACE)
    ).split()
)
"""Names in `torch.ops.aten`, whatever the overload."""

_ARITHMETIC = """
    _operator.add _operator.sub _operator.mul _operator.floordiv _operator.mod _operator.pow _operator.neg
    _operator.truediv _operator.eq _operator.ne _operator.lt _operator.le _operator.gt _operator.ge
    _operator.and_ _operator.or_ _operator.getitem math.ceil math.floor math.trunc torch.sym_int
    torch.sym_float torch.sym_max torch.sym_min torch.sym_not torch.sym_ite
"""
SYMBOLIC = frozenset(_ARITHMETIC.split())
"""Arithmetic on sizes."""

_HIGHER_ORDER = "torch.ops.higher_order."
SCAN = f"{_HIGHER_ORDER}scan"
"""A loop over the first axis, whose body is a graph of its own: allowed outside of other bodies only."""
COND = f"{_HIGHER_ORDER}cond"
"""A choice between two graphs by a truth value."""
GRAD_MODE = f"{_HIGHER_ORDER}wrap_with_set_grad_enabled"
"""A graph that records gradients, or does not: it computes the same either way."""
AUTOCAST = f"{_HIGHER_ORDER}wrap_with_autocast"
"""A graph with or without automatic casts."""

_ASSERTIONS = re.compile(r"torch\.ops\.aten\.(_assert_\w+|sym_constrain_range\w*)\.\w+")
_OUT = re.compile(r"(^|_)out$", re.ASCII)  # but not `dtype_layout`
_OVERLOAD = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)


def is_assertion(target: str) -> bool:
    """Whether a call only checks what the trace anew will check itself, and can be left out."""
    return _ASSERTIONS.fullmatch(target) is not None


def check(target: str) -> None:
    """Raise `Rejected` (`unknown_operator`), naming the operator, unless `target` is allowed."""
    found = _OVERLOAD.fullmatch(target)
    # An `out` overload writes into whatever tensor it is given.
    if target in SYMBOLIC or (found and found[1] in ATEN and not _OUT.search(found[2])):
        return
    raise Rejected(
        "unknown_operator",
        f"The model calls the operator {show(target)}, which is not supported.",
        hint=_HINTS.get(target, _NESTED if target.startswith(_HIGHER_ORDER) else _FLAT),
    )


_FLAT = "Replace the operator by standard torch.nn or torch.nn.functional calls and export again."
_NESTED = "Of control flow, cond and scan are supported, a scan outside of every other only."
_HINTS = {
    f"{_HIGHER_ORDER}while_loop": "How often it runs depends on the data. Loop a fixed number of times in "
    "Python, or over an axis by torch's scan."
}
