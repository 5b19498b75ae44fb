"""ATen operators that multiply no matrices, beyond those that torch tags as pointwise, reduction or view.

Without them in a list of known ones, an operator nobody thought of would silently cost nothing.
"""

_NORMALISATION = """
    _batch_norm_impl_index _batch_norm_no_update _fused_rms_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training batch_norm cudnn_batch_norm group_norm instance_norm layer_norm
    native_batch_norm native_group_norm native_layer_norm rms_norm
"""
_ACTIVATION = """
    _log_softmax _prelu_kernel _safe_softmax _softmax alpha_dropout celu dropout elu feature_dropout glu
    hardsigmoid hardswish hardtanh log_sigmoid log_sigmoid_forward log_softmax native_dropout prelu rrelu
    rrelu_with_noise softmax softplus threshold
"""
_POOLING = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d
    max_pool1d max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
"""
_RESAMPLING = """
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d grid_sampler_2d grid_sampler_3d upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""
_LAYOUT = """
    _assert_async _assert_scalar _assert_tensor_metadata _pad_circular _reshape_copy _to_copy _unsafe_view
    block_diag cat channel_shuffle col2im constant_pad_nd copy fill flip im2col lift lift_fresh
    lift_fresh_copy native_channel_shuffle new_empty new_full new_ones new_zeros pad pixel_shuffle
    pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d resize roll rot90 set stack tril triu
    unfold_copy zero
"""
_CREATION = """
    _efficientzerotensor arange bernoulli empty empty_like empty_permuted empty_strided eye full full_like
    linspace normal normal_functional ones ones_like rand rand_like randint randint_like randn randn_like
    scalar_tensor tril_indices triu_indices uniform zeros zeros_like
"""
_LOOKUP = """
    _embedding_bag _embedding_bag_forward_only _index_put_impl _local_scalar_dense _unsafe_index
    _unsafe_index_put bincount bucketize embedding embedding_bag gather index index_add index_copy
    index_fill index_put index_reduce index_select item masked_scatter masked_select nonzero one_hot
    scatter scatter_add scatter_reduce searchsorted select_scatter slice_scatter take take_along_dim
    unique_consecutive
"""
_ORDER_AND_SCAN = """
    _cummax_helper _cummin_helper _logcumsumexp argsort cummax cummin cumprod cumsum diff kthvalue
    logcumsumexp max median min mode msort renorm sort topk
"""
_SYMBOLIC = """
    is_nonzero prim.device prim.layout sym_constrain_range sym_constrain_range_for_size sym_numel sym_size
    sym_storage_offset sym_stride
"""

FREE = frozenset(
    " ".join(
        (
            _NORMALISATION,
            _ACTIVATION,
            _POOLING,
            _RESAMPLING,
            _LAYOUT,
            _CREATION,
            _LOOKUP,
            _ORDER_AND_SCAN,
            _SYMBOLIC,
        )
    ).split()
)
