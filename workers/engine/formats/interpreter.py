"""An admitted program as a module that torch.export can trace."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from workers.engine.admit.calls import mutates
from workers.engine.admit.operators import AUTOCAST, COND, GRAD_MODE, SCAN
from workers.engine.admit.program import (
    Argument,
    Call,
    Program,
    Reference,
    State,
    Subgraph,
    TorchConstant,
    names_in,
)
from workers.engine.errors import Rejected
from workers.engine.formats.arithmetic import arithmetic

# What the arguments that tell training from evaluation become: an upload is always read in evaluation mode.
_EVALUATION: dict[str, Argument] = {"train": False, "training": False, "dropout_p": 0.0}

_Operator = Callable[..., Any]


def _cond(predicate: Any, yes: _Operator, no: _Operator, operands: list[Any]) -> Any:
    """A choice; what is known while this is traced leaves no trace."""
    if isinstance(predicate, bool):
        return (yes if predicate else no)(*operands)
    ways = (_in_tuple(yes), _in_tuple(no))  # torch writes down the form of what they return
    return torch.ops.higher_order.cond(predicate, *ways, operands)


def _in_tuple(body: _Operator) -> _Operator:
    return lambda *operands: tuple(body(*operands))


def _run(body: _Operator, operands: list[Any]) -> Any:
    return body(*operands)


_NESTED: Mapping[str, _Operator] = {
    SCAN: torch.ops.higher_order.scan,
    COND: _cond,
    GRAD_MODE: _run,
    AUTOCAST: _run,
}


def interpreter(program: Program, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module in evaluation mode whose forward makes the program's calls one by one.

    `tensors` holds the states' values by attribute path; states that share one `Tensor` object stay tied.
    The parameters of forward are named after the inputs' values. A model exported in training mode is turned
    to evaluation: dropout and batch statistics off, its counting of batches left out. Raises `Rejected`:
    `unknown_operator` for an overload torch does not have, `hostile_name`, `mutates_state`.
    """
    root = nn.Module()
    for state in program.states:
        _register(root, state, tensors[state.path])
    calls, cloned = _without_mutation(program)
    known = _known(program, tensors)
    steps = _steps(_decided(call, known) for call in calls)
    states = [(state.name, attrgetter(state.path)) for state in program.states]
    names = [spec.value for spec in program.inputs]

    def forward(*inputs: Tensor) -> Any:
        values: dict[str, Any] = {name: read(root) for name, read in states}
        values.update(zip(names, inputs, strict=True))
        values.update({name: values[name].clone() for name in cloned})
        for function, call in steps:
            _execute(function, call, values)
        outputs = tuple(values[name] for name in program.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    # torch.export names the graph's inputs after the signature; no code is generated for it.
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    root.forward = forward
    return root.eval()


def _steps(calls: Iterable[Call]) -> list[tuple[_Operator, Call]]:
    return [(_resolve(call.operator), _evaluating(call)) for call in calls]


def _known(program: Program, tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """The truth values that are stored, by name."""
    stored = {state.name: tensors[state.path] for state in program.states if state.kind != "parameter"}
    return {
        name: bool(flag) for name, flag in stored.items() if flag.dtype == torch.bool and flag.numel() == 1
    }


def _decided(call: Call, known: Mapping[str, bool]) -> Call:
    """The call, with a stored truth value in the place of its name where it is a choice by one."""
    if call.operator != COND or not isinstance(call.arguments[0], Reference):
        return call
    predicate = known.get(call.arguments[0].name, call.arguments[0])
    return replace(call, arguments=(predicate, *call.arguments[1:]))


def _register(root: nn.Module, state: State, tensor: Tensor) -> None:
    *containers, name = state.path.split(".")
    module = root
    try:
        for part in containers:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if state.kind == "parameter":
            module.register_parameter(name, tensor)  # type: ignore[arg-type]  # made one where it was loaded
        else:
            module.register_buffer(name, tensor, persistent=state.persistent or state.kind == "constant")
    except (KeyError, TypeError, AttributeError):
        raise Rejected(
            "hostile_name", f"{state.path!r} is not accepted as the name of a tensor: it is taken."
        ) from None


def _resolve(target: str) -> _Operator:
    if target in _NESTED:
        return _NESTED[target]
    symbolic = arithmetic(target)
    if symbolic is not None:
        return symbolic
    package, _, name = target.rpartition(".")
    packet = getattr(torch.ops.aten, package.rpartition(".")[2], None)
    if packet is None or name not in packet.overloads():
        raise Rejected("unknown_operator", f"This release of torch has no operator {target!r}.")
    overload: _Operator = getattr(packet, name)
    return overload


def _without_mutation(program: Program) -> tuple[list[Call], set[str]]:
    """The calls that remain, and the inputs to clone so that the caller's tensors are never written into.

    Counters (a buffer that nothing but its own increment uses) are left out; any other write into a state is
    rejected.
    """
    inputs = {spec.value for spec in program.inputs}
    owners = {name: name for name in inputs} | {state.name: state.name for state in program.states}
    calls, cloned = [], set()
    for call in program.calls:
        written = {owners[name] for name in _written(call) if name in owners}
        cloned |= written & inputs
        if written <= inputs:
            owners |= _aliases(call, owners)
            calls.append(call)
        elif _is_used({*(name for name in owners if owners[name] in written), *call.results}, call, program):
            raise mutates(call.operator)
    return calls, cloned


def _is_used(names: set[str | None], call: Call, program: Program) -> bool:
    """Whether anything but `call` reads one of the values."""
    used = set(program.outputs).union(*(other.references for other in program.calls if other is not call))
    return not used.isdisjoint(names)


def _written(call: Call) -> set[str]:
    """The values a call writes into."""
    return {
        name
        for name, argument in _named(call)
        if (alias := argument.alias_info) is not None and alias.is_write
    }


def _aliases(call: Call, owners: Mapping[str, str]) -> dict[str, str]:
    """Which of a call's results share memory with an input or state, by the operator's schema."""
    schema = getattr(_resolve(call.operator), "_schema", None)
    if schema is None or not any(result.alias_info for result in schema.returns):
        return {}
    sources = [owners[name] for name, argument in _named(call) if argument.alias_info and name in owners]
    return {result: sources[0] for result in call.results if result is not None and sources}


def _named(call: Call) -> list[tuple[str, Any]]:
    """The values a call takes, each with its argument in the operator's schema."""
    schema = {argument.name: argument for argument in _schema_arguments(call)}
    taken = [*zip(schema.values(), call.arguments, strict=False)]
    taken += [(schema[name], value) for name, value in call.keywords.items() if name in schema]
    return [(name, argument) for argument, value in taken for name in names_in(value)]


def _schema_arguments(call: Call) -> list[Any]:
    schema = getattr(_resolve(call.operator), "_schema", None)
    return [] if schema is None else list(schema.arguments)


def _evaluating(call: Call) -> Call:
    """The call with its training switches off."""
    names = [argument.name for argument in _schema_arguments(call)]
    arguments = [
        _EVALUATION.get(names[place], value) if place < len(names) else value
        for place, value in enumerate(call.arguments)
    ]
    keywords = {name: _EVALUATION.get(name, value) for name, value in call.keywords.items()}
    return Call(call.operator, tuple(arguments), keywords, call.results, call.unpacked)


def _execute(function: _Operator, call: Call, values: dict[str, Any]) -> None:
    arguments = [_value(argument, values) for argument in call.arguments]
    keywords = {name: _value(argument, values) for name, argument in call.keywords.items()}
    result = function(*arguments, **keywords)
    results = tuple(result or ()) if call.unpacked else (_first(result),)
    for name, value in zip(call.results, results, strict=True):
        if name is not None:
            values[name] = value


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, (tuple, list)) else result


def _value(argument: Argument, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Reference):
        return values[argument.name]
    if isinstance(argument, TorchConstant):
        return torch.device("cpu") if argument.kind == "device" else getattr(torch, argument.name)
    if isinstance(argument, tuple):
        return [_value(item, values) for item in argument]
    if isinstance(argument, Subgraph):
        return _function(argument)
    return argument


def _function(body: Subgraph) -> Callable[..., list[Any]]:
    """A graph inside of the graph as a function; raises `Rejected` where it writes into a tensor."""
    for call in body.calls:
        if _written(call):
            raise mutates(call.operator)
    steps = _steps(body.calls)

    def function(*inputs: Tensor) -> list[Any]:
        values: dict[str, Any] = dict(zip(body.inputs, inputs, strict=True))
        for operation, call in steps:
            _execute(operation, call, values)
        return [values[name] for name in body.outputs]

    return function
