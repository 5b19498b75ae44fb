"""Recurrent calls: which they are, what they return, and how a trace keeps them whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import RLock
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch._subclasses import FakeTensor

aten = torch.ops.aten
RECURRENT = {  # by the name that users know
    aten.lstm.input: "lstm",
    aten.gru.input: "gru",
    aten.rnn_tanh.input: "rnn",
    aten.rnn_relu.input: "rnn",
}
_UNROLLING = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
_patching = RLock()


def outputs(
    input: Tensor,  # noqa: A002  # the schema's name
    hx: Tensor | Sequence[Tensor],
    *,
    bidirectional: bool,
    **_: Any,
) -> tuple[Tensor, ...]:
    """Tensors shaped like what a recurrent call returns: the sequence of hidden states, and the last states.

    The arguments are the operator's, by name. An LSTM with a projection has its projected size in `hx[0]`.
    """
    states = [hx] if isinstance(hx, Tensor) else hx
    features = states[0].shape[-1] * (2 if bidirectional else 1)
    return (input.new_empty((*input.shape[:2], features)), *map(torch.empty_like, states))


@contextmanager
def kept_whole() -> Iterator[None]:
    """While this lasts, recurrent calls on tensors without data are not unrolled step by step.

    torch computes what they return by running every step, which is slow and fixes the length of the sequence.
    Only the answer for tensors without data changes: the traced program is an ordinary one, and calls on real
    tensors stay torch's own. One thread at a time.
    """
    with _patching, ExitStack() as patches:
        for operator in RECURRENT:
            own = {key: partial(_kernel, operator, operator.py_kernels[key]) for key in _UNROLLING}
            patches.callback(operator._dispatch_cache.clear)
            patches.enter_context(patch.dict(operator.py_kernels, own))
            operator._dispatch_cache.clear()
            unrolled = {operator: partial(_kernel, operator, decomposition_table[operator])}
            patches.enter_context(patch.dict(decomposition_table, unrolled))
        yield


def _kernel(
    operator: OpOverload[..., Any], unrolled: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Tensor, ...]:
    bound = bind(operator, args, kwargs)
    without_data = isinstance(bound["input"], FakeTensor) or bound["input"].is_meta
    return outputs(**bound) if without_data else unrolled(*args, **kwargs)


def bind(target: OpOverload[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """An operator's arguments by their names; defaults are left out."""
    names = [argument.name for argument in target._schema.arguments]
    return dict(zip(names, args, strict=False)) | dict(kwargs)
