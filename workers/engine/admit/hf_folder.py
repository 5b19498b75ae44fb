"""Admission of a Hugging Face folder: a zip of config.json and weights in safetensors."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.engine.admit import hf_config, safetensors
from workers.engine.admit import tokenizer as admission
from workers.engine.admit.archive import Archive, Rules, open_archive, show
from workers.engine.admit.document import expect, field, load
from workers.engine.admit.hf_fields import Config
from workers.engine.admit.safetensors import Span
from workers.engine.admit.tokenizer import Tokenizer
from workers.engine.errors import Rejected

RULES = Rules(deflate=True, max_bytes=64 << 30, max_ratio=8, free_bytes=16 << 20, folders=True)
MAX_ENTRIES = 1000

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TOKENIZER, _TOKENIZER_CONFIGS = "tokenizer.json", ("tokenizer_config.json", "special_tokens_map.json")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
BESIDE = frozenset(
    {
        *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
        *("special_tokens_map.json", "added_tokens.json", "normalizer.json", "chat_template.jinja"),
        *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
        *("preprocessor_config.json", "processor_config.json", "generation_config.json"),
        *("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE"),
    }
)
"""What stands beside a model and says nothing about its network."""

_PASSED_OVER = frozenset({".gitattributes", ".DS_Store"})
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5")
_CODE = (".py", ".pyc", ".so", ".dll", ".sh", ".ipynb")
_ZIP_HINT = "Pack the files of one folder, with it or without: zip -j model.zip folder/*."
_DESKTOP = "__MACOSX"  # a folder that desktops add


@dataclass(frozen=True)
class Shard:
    """A file of weights in the archive, and the arrays in it in the order of their bytes."""

    entry: str
    arrays: tuple[Span, ...]


@dataclass(frozen=True)
class Folder:
    """An admitted folder. Every name in it is one array's, and what its bytes are is known."""

    config: Config
    shards: tuple[Shard, ...]


@contextmanager
def admit(path: Path) -> Iterator[tuple[Folder, Archive]]:
    """The folder in a zip, and the archive its arrays are read from while the context lasts.

    All that is written about the arrays was checked, none of their values was read. Raises `Rejected`:
    `unknown_entry`, `pickled_weights`, `code_in_folder`, `missing_entry`, `shards_differ`, and what
    `hf_config.admit` and `safetensors.spans` raise.
    """
    with open_archive(path, RULES) as opened:
        archive = _unpacked(opened)
        _check_names(archive.names)
        config = hf_config.admit(archive.read(_CONFIG, hf_config.MAX_CONFIG_BYTES))
        shards = tuple(Shard(entry, _arrays(archive, entry)) for entry in _weights(archive.names))
        _check_shards(shards, archive)
        yield Folder(config, shards), archive


def tokenizer(archive: Archive) -> Tokenizer | None:
    """The tokenizer of an admitted folder, where it has a tokenizer.json; raises `Rejected` as its admission
    does."""
    if _TOKENIZER not in archive.names:
        return None
    beside = [name for name in _TOKENIZER_CONFIGS if name in archive.names]
    return admission.admit(
        archive.read(_TOKENIZER, admission.MAX_BYTES),
        [archive.read(name, admission.MAX_CONFIG_BYTES) for name in beside],
    )


def _unpacked(archive: Archive) -> Archive:
    """The archive without the folder that all of it is in, where there is one."""
    parts = [name.partition("/") for name in archive.names]
    tops = {top if below else None for top, below, _ in parts if top != _DESKTOP}
    top = tops.pop() if len(tops) == 1 else None
    return archive if top is None else archive.within(top)


def _check_names(names: list[str]) -> None:
    if len(names) > MAX_ENTRIES:
        raise Rejected("too_many_entries", f"The archive has more than {MAX_ENTRIES} entries.")
    for name in names:
        if name in {_CONFIG, _WEIGHTS, _INDEX} | BESIDE | _PASSED_OVER or _SHARD.fullmatch(name):
            continue
        if name.endswith(_PICKLED):
            raise Rejected(
                "pickled_weights",
                f"The entry {show(name)} is of a format that can carry code.",
                hint="Save the weights as safetensors, as save_pretrained does, and leave this file out.",
            )
        if name.endswith(_CODE):
            raise Rejected(
                "code_in_folder",
                f"The entry {show(name)} is code, which is never run.",
                hint="Leave it out, if the model is one of transformers' own classes.",
            )
        raise Rejected(
            "unknown_entry", f"The entry {show(name)} is no part of a model's folder.", hint=_ZIP_HINT
        )


def _weights(names: list[str]) -> list[str]:
    shards = sorted(name for name in names if _SHARD.fullmatch(name))
    if (_WEIGHTS in names) == bool(shards):
        raise Rejected(
            "missing_entry" if not shards else "shards_differ",
            f"The archive should have either {_WEIGHTS} or shards with {_INDEX}.",
            hint=_ZIP_HINT,
        )
    return shards or [_WEIGHTS]


def _arrays(archive: Archive, entry: str) -> tuple[Span, ...]:
    head: Callable[[int], bytes] = functools.partial(archive.head, entry)
    return tuple(safetensors.spans(head, archive.size(entry), _path_of))


def _path_of(value: object, what: str) -> str:
    """An array's name: identifiers and numbers with dots between them."""
    name = expect(value, str, what)
    if len(name) > 200 or not re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII):
        raise Rejected("hostile_name", f"{show(name)} is not accepted as {what}: names are dotted paths.")
    return name


def _check_shards(shards: tuple[Shard, ...], archive: Archive) -> None:
    """No array is in two shards, and the index says of each where it is."""
    places: dict[str, str] = {}
    for shard in shards:
        for array in shard.arrays:
            if array.name in places:
                raise _shards_differ(f"the array {show(array.name)} is in two of them")
            places[array.name] = shard.entry
    if _INDEX not in archive.names:
        if shards[0].entry != _WEIGHTS:
            raise Rejected("missing_entry", f"The archive has shards, but no {_INDEX}.", hint=_ZIP_HINT)
        return
    index = field(load(archive.read(_INDEX, safetensors.MAX_HEADER_BYTES), _INDEX), "weight_map", dict)
    for name, entry in index.items():
        if places.get(name) != entry:
            raise _shards_differ(f"the index says that {show(name)} is in {_entry(entry)}")
    if len(index) != len(places):
        raise _shards_differ("they hold arrays that are not in the index")


def _entry(value: object) -> str:
    return show(expect(value, str, "the name of a shard"))


def _shards_differ(what: str) -> Rejected:
    return Rejected(
        "shards_differ",
        f"The shards are not those of the index: {what}.",
        hint="Upload all files of one save_pretrained, and no others.",
    )
