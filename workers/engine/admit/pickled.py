"""Tables of tensors as torch.save writes them: one fixed grammar of opcodes, read without unpickling.

A pickle is a program: whoever runs it runs whatever it names. Here its opcodes are parsed by the standard
library's `pickletools`, which runs nothing, and a machine that knows only dictionaries, tuples and numbers
takes those that describe plain tensors. Every other opcode, and every other name, is refused.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from workers.engine.admit.archive import Archive, show
from workers.engine.admit.document import malformed
from workers.engine.admit.dtypes import BYTES
from workers.engine.admit.program import Payload
from workers.engine.admit.tensors import MAX_AXES, MAX_LENGTH, check_byte_order
from workers.engine.errors import Rejected

MAX_PICKLE_BYTES = 16 << 20
_MOST_ARGUMENTS = 8

_STORAGES = {
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "BoolStorage": "bool",
    "BFloat16Storage": "bfloat16",
}
_ENTRY = re.compile(
    r"(?P<root>[^/]+)/(data\.pkl|data/\d+|byteorder|version|\.data/serialization_id|\.format_version"
    r"|\.storage_alignment)",
    re.ASCII,
)
_TENSOR, _PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
_DICTIONARY = "collections OrderedDict"
_NAMES = {_TENSOR, _PARAMETER, _DICTIONARY} | {f"torch {storage}" for storage in _STORAGES}

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMORISED = {"BINPUT", "LONG_BINPUT"}
_RECALLED = {"BINGET", "LONG_BINGET"}


@dataclass(frozen=True)
class PickledTensor:
    """A strided view, in elements, of the storage `key`, which has so many elements of `dtype`."""

    key: str
    dtype: str
    elements: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool


@dataclass(frozen=True)
class _Name:
    """Something of torch's that the pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    elements: int


def payloads(archive: Archive, entry: str) -> dict[str, Payload]:
    """The tensors by path in what torch.save wrote into `entry`, which `archive` has unfolded.

    Raises `Rejected`: what `tensors_of` does, `unknown_entry`, `unsupported_byte_order`, `payload_size`.
    """
    root = f"{entry}/{_root(archive, entry)}"
    check_byte_order(archive, root)
    found = tensors_of(archive.read(f"{root}/data.pkl", MAX_PICKLE_BYTES), entry)
    for tensor in found.values():
        if archive.size(f"{root}/data/{tensor.key}") != tensor.elements * BYTES[tensor.dtype]:
            raise Rejected("payload_size", f"The storage {tensor.key} of {show(entry)} has another size.")
    return {
        path: Payload(
            f"{root}/data/{each.key}", each.dtype, each.shape, each.strides, each.offset, each.requires_grad
        )
        for path, each in found.items()
    }


def _root(archive: Archive, entry: str) -> str:
    """The one folder in which everything lies."""
    roots = set()
    for name in archive.within(entry).names:
        known = _ENTRY.fullmatch(name)
        if known is None:
            raise Rejected(
                "unknown_entry", f"{show(entry)} has an entry that does not belong there: {show(name)}."
            )
        roots.add(known["root"])
    if len(roots) != 1:
        raise malformed(f"{show(entry)} should hold one folder")
    return roots.pop()


def tensors_of(data: bytes, what: str) -> dict[str, PickledTensor]:
    """The tensors by path in the `data.pkl` of a file that torch.save wrote; `what` names it in messages.

    Raises `Rejected`: `pickled_code` where it names or does anything but describe plain tensors, `malformed`.
    """
    found = _Machine(what).run(data)
    if type(found) is not dict:
        raise malformed(f"{what} should hold a table of tensors")
    for path, tensor in found.items():
        if type(path) is not str or type(tensor) is not PickledTensor:
            raise malformed(f"{what} should hold tensors by their names")
    return found


class _Machine:
    """What the few opcodes do: values on a stack, and a memory of some of them."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}
        self._does: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "MARK": lambda _: self._stack.append(_MARK),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "GLOBAL": self._global,
            "BINPERSID": lambda _: self._stack.append(self._storage(self._stack.pop())),
            "TUPLE": lambda _: self._stack.append(tuple(self._since_mark())),
            "REDUCE": lambda _: self._reduce(),
            "SETITEM": lambda _: self._set([self._stack.pop() for _ in range(2)][::-1]),
            "SETITEMS": lambda _: self._set(self._since_mark()),
        }

    def run(self, data: bytes) -> object:
        """What is left on the stack."""
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    [found] = self._stack
                    return found
                self._do(opcode.name, argument)
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # of what makes no sense
            raise malformed(f"{self._what} is no pickle of tensors") from error
        raise malformed(f"{self._what} does not end")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in self._does:
            self._does[name](argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in _MEMORISED:
            self._memory[argument] = stack[-1]
        elif name in _RECALLED:
            stack.append(self._memory[argument])
        else:
            raise self._refused(f"does what no tensor needs ({name})")

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _set(self, values: list[Any]) -> None:
        table = self._stack[-1]
        if type(table) is not dict or any(type(key) is not str for key in values[::2]):
            raise ValueError("there is no table to fill by names")
        table.update(zip(values[::2], values[1::2], strict=True))

    def _global(self, name: str) -> None:
        if name not in _NAMES:
            raise self._refused(f"names {show(name.replace(' ', '.'))}")
        self._stack.append(_Name(name))

    def _storage(self, identity: Any) -> _Storage:
        kind, storage, key, _, elements = identity
        if kind != "storage" or type(key) is not str or not (key.isascii() and key.isdigit()):
            raise ValueError("a storage has no number")
        return _Storage(key, _STORAGES[storage.name.removeprefix("torch ")], _count(elements))

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(arguments) is not tuple or len(arguments) > _MOST_ARGUMENTS:
            raise ValueError("a call has other arguments")
        if function == _Name(_DICTIONARY) and arguments == ():
            self._stack.append({})
        elif function == _Name(_TENSOR):
            self._stack.append(_tensor(*arguments))
        elif function == _Name(_PARAMETER):
            tensor, requires_grad, hooks = arguments
            if type(tensor) is not PickledTensor or hooks != {}:
                raise ValueError("a parameter is no plain tensor")
            self._stack.append(replace(tensor, requires_grad=requires_grad is True))
        else:
            raise self._refused("calls what makes no tensor")

    def _refused(self, problem: str) -> Rejected:
        return Rejected(
            "pickled_code",
            f"The weights are a pickle that {problem}: {self._what}.",
            hint="Save it anew with torch 2.9 or later, where you trust it: "
            "torch.export.save(torch.export.load(file), file).",
        )


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, *rest: Any
) -> PickledTensor:
    if type(storage) is not _Storage or hooks != {} or rest not in ((), (None,)):
        raise ValueError("a tensor is not plain")
    sizes, steps = _counts(shape), _counts(strides)
    return PickledTensor(
        storage.key, storage.dtype, storage.elements, sizes, steps, _count(offset), requires_grad is True
    )


def _counts(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or len(values) > MAX_AXES:
        raise ValueError("a tensor has too many axes")
    return tuple(map(_count, values))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_LENGTH:
        raise ValueError("a tensor has an impossible length")
    return value
