"""Changed files: bytes, documents, entries of archives and fields of messages, a few at a time."""

import copy
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from tests.workers.engine.hostile import Entries, packed

Mutate: TypeAlias = Callable[[Random, bytes], bytes]
_NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
_JUNK: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**62, 2**63, -(2**63), 10**30, 0.5, -1.5, 1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        "x",
        "input",
        "self",
        "__class__",
        "../x",
        "\0",
        "é",
        "9" * 50,
        "a" * 5000,
    ),
    *([], {}, [[]], [1, 2, 3], [-1], {"as_int": 5}, {"as_tensor": {"name": "input"}}, [{"as_int": 1}] * 3),
]
_LONGEST = 1 << 20  # bytes that a mutant may have more than its parent


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything inside a JSON document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found: list[tuple[Any, ...]] = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*path, key))
    return found


def mutate(document: Any, place: tuple[Any, ...], value: Any, how: str) -> None:
    """Replace, remove or repeat what is at a place."""
    for key in place[:-1]:
        document = document[key]
    if how == "replace":
        document[place[-1]] = value
    elif how == "remove":
        del document[place[-1]]
    elif isinstance(document, list):
        document.append(document[place[-1]])
    else:
        document[str(value)] = document[place[-1]]


def at(document: Any, place: tuple[Any, ...]) -> Any:
    """What is at a place."""
    for key in place:
        document = document[key]
    return document


def changed_bytes(random: Random, data: bytes) -> bytes:
    """A few bytes, numbers or stretches changed, repeated, moved or left out."""
    found = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        place = random.randrange(len(found) or 1)
        length = min(random.choice((1, 2, 4, 8, 64, 1024)), len(found) - place)
        match random.randrange(6):
            case 0:
                found[place : place + 1] = bytes([random.randrange(256)])
            case 1:
                number = random.choice(_NUMBERS).to_bytes(8, random.choice(("little", "big")))
                found[place : place + length] = (number * 128)[:length]
            case 2:
                del found[place : place + length]
            case 3:
                found[place:place] = found[place : place + length] * random.choice((1, 2, 64))
            case 4:
                source = random.randrange(len(found) or 1)
                found[place : place + length] = found[source : source + length]
            case 5:
                del found[random.randrange(len(found) or 1) :]
    return bytes(found[: len(data) + _LONGEST])


def changed_document(random: Random, data: bytes) -> bytes:
    """A JSON document with a few values replaced by junk or by each other, removed or repeated."""
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        known = places(document)
        if not known:
            break
        place = random.choice(known)
        value = copy.deepcopy(
            at(document, random.choice(known)) if random.random() < 0.4 else random.choice(_JUNK)
        )
        mutate(document, place, value, random.choice(("replace", "replace", "remove", "repeat")))
    return json.dumps(document).encode()[: len(data) + _LONGEST]


def changed_entry(random: Random, name: str, data: bytes) -> bytes:
    """A file of an archive, changed as what it holds."""
    if random.random() < 0.8:
        if name.endswith(".json"):
            return changed_document(random, data)
        if name.endswith(".safetensors"):
            return changed_safetensors(random, data)
    return changed_bytes(random, data)


def changed_entries(random: Random, entries: Entries) -> bytes:
    """An archive of which an entry is changed, left out, added or called otherwise; or its own bytes are."""
    made = dict(entries)
    name = random.choice(list(made))
    match random.randrange(8):
        case 0:
            del made[name]
        case 1:
            made[random.choice([*made, "x", "../x", name + ".so", "a/" + name, name.upper()])] = made.pop(
                name
            )
        case 2:
            made[name] = made[random.choice(list(made))]
        case 3:
            return changed_bytes(random, packed(made))
        case _:
            made[name] = changed_entry(random, name, made[name])
    compression = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    return packed(made, compression)


def changed_safetensors(random: Random, data: bytes) -> bytes:
    """A header with values changed in front of the same bytes, or other bytes behind it."""
    (length,) = struct.unpack_from("<Q", data)
    header, rest = data[8 : 8 + length], data[8 + length :]
    match random.randrange(4):
        case 0:
            rest = changed_bytes(random, rest)
        case 1:
            return changed_bytes(random, data)
        case _:
            header = changed_document(random, header)
    return struct.pack("<Q", len(header)) + header + rest


Message: TypeAlias = list[tuple[int, int, Any]]
"""The fields of a protocol buffer: number, wire type, value; a message again where the bytes are like one."""


def parsed(data: bytes, depth: int = 6) -> Message | None:
    """The message in some bytes, or None where they are none."""
    place, found = 0, []
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, place = data[place : place + size], place + size
        elif wire == 2:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
            value = (parsed(value, depth - 1) if depth and len(value) > 1 else None) or value
        else:
            return None
        if not number or place > len(data):
            return None
        found.append((number, wire, value))
    return found


def written(message: Message) -> bytes:
    """The bytes of a message."""
    made = b""
    for number, wire, value in message:
        made += _written_varint(number << 3 | wire)
        if wire == 0:
            made += _written_varint(value)
        elif wire == 2:
            content = written(value) if isinstance(value, list) else value
            made += _written_varint(len(content)) + content
        else:
            made += value
    return made


def changed_message(random: Random, data: bytes) -> bytes:
    """A protocol buffer of which a few fields are changed, left out or repeated; lengths stay right."""
    if random.random() < 0.25 or (message := parsed(data)) is None:
        return changed_bytes(random, data)
    for _ in range(random.choice((1, 1, 2, 4))):
        _change_field(random, message)
    return written(message)[: len(data) + _LONGEST]


def _change_field(random: Random, message: Message) -> None:
    while True:
        if not message:
            return
        place = random.randrange(len(message))
        number, wire, value = message[place]
        if not isinstance(value, list) or random.random() < 0.15:
            break
        message = value
    match random.randrange(6):
        case 0:
            del message[place]
        case 1:
            message.insert(random.randrange(len(message)), copy.deepcopy(message[place]))
        case 2:
            message[place] = (random.randrange(1, 25), wire, value)
        case 3:
            other = random.choice(message)
            message[place] = (number, other[1], copy.deepcopy(other[2]))
        case _ if wire == 0:
            message[place] = (number, wire, random.choice(_NUMBERS))
        case _:
            content = written(value) if isinstance(value, list) else value
            fixed = len(content) if wire != 2 else None
            message[place] = (number, wire, changed_bytes(random, content)[:fixed].ljust(fixed or 0, b"\0"))


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
    return value, len(data) + 1


def _written_varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
