"""Admission of a tokenizer.json: components that are known, bounded, and taken over one by one."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workers.engine.admit import patterns
from workers.engine.admit.archive import show
from workers.engine.admit.document import load
from workers.engine.errors import Rejected

MAX_BYTES = 64 << 20
MAX_CONFIG_BYTES = 4 << 20
MAX_IDS = 1 << 20

_MAX_MERGES = 1 << 21
_MAX_ADDED = 1 << 16
_MAX_TOKEN = 1000  # characters
_MAX_PARTS = 16  # of a component that has several
_MAX_GROWTH = 64  # of a text, by what replaces parts of it
_MAX_CHARS_MAP = 4 << 20

Check = Callable[[object], Any]


@dataclass(frozen=True)
class Tokenizer:
    """An admitted tokenizer. `document` is a tokenizer.json with nothing in it that was not checked; its ids
    are below `ids`. `pad` is the id of padding and `longest` the most tokens of a row, where it says so."""

    document: str
    ids: int
    pad: int | None
    longest: int | None


def admit(data: bytes, configs: list[bytes]) -> Tokenizer:
    """The tokenizer in `data`, with what tokenizer_config.json and special_tokens_map.json say, if there.

    Decoders, padding and truncation are left out. Raises `Rejected`: `tokenizer_component` for what is not
    known or out of bounds, `tokenizer_pattern`, and what is no JSON.
    """
    document = load(data, "tokenizer.json")
    model = _component(_with_type(document.get("model")), _MODELS, "model")
    if "vocab" not in model:
        raise _refused("model", "has no vocabulary")
    tokens = _checked(_list(_MAX_ADDED), document.get("added_tokens") or [], "added_tokens")
    added = [_fields(token, _ADDED, "added_tokens") for token in tokens]
    ids = {**_ids(model["vocab"]), **{token["content"]: token["id"] for token in added}}
    normalizer = _optional(document, "normalizer", _NORMALIZERS)
    _demand_little_growth(normalizer)
    made = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": _optional(document, "pre_tokenizer", _PRE_TOKENIZERS),
        "post_processor": _optional(document, "post_processor", _PROCESSORS),
        "model": model,
    }
    said = [load(config, "a file beside tokenizer.json") for config in configs]
    pads = [ids[name] for config in said if (name := _content(config.get("pad_token"))) in ids]
    lengths = [length for config in said if 1 < (length := _number(config.get("model_max_length"))) < 1 << 20]
    return Tokenizer(
        json.dumps(made),
        1 + max(ids.values(), default=0),
        pads[0] if pads else None,
        min(lengths, default=None),
    )


def _with_type(model: object) -> object:
    """Older files leave the model's type to what it has."""
    if type(model) is not dict or "type" in model:
        return model
    if "merges" in model:
        return {"type": "BPE", **model}
    kind = "Unigram" if type(model.get("vocab")) is list else "WordLevel"
    return {"type": "WordPiece" if "max_input_chars_per_word" in model else kind, **model}


def _content(token: object) -> object:
    """A special token's text, which stands alone or in an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _number(value: object) -> int:
    return int(value) if type(value) in (int, float) and 0 < value < 1 << 40 else 0  # type: ignore[operator, call-overload]


def _optional(document: Mapping[str, Any], name: str, kinds: "Kinds") -> dict[str, Any] | None:
    value = document.get(name)
    return None if value is None else _component(value, kinds, name)


def _component(value: object, kinds: "Kinds", what: str, depth: int = 0) -> dict[str, Any]:
    """A component of a known type with checked fields; a sequence of others, two deep at most."""
    if type(value) is not dict or type(value.get("type")) is not str or value["type"] not in kinds:
        kind = value.get("type") if isinstance(value, dict) else None
        raise _refused(what, f"is of the type {_shown(kind)}; known are {', '.join(kinds)}")
    kind, fields = value["type"], kinds[value["type"]]
    if isinstance(fields, str):
        if depth > 1:
            raise _refused(what, "is nested too deeply")
        parts = _checked(_list(_MAX_PARTS), value.get(fields), what)
        return {"type": kind, fields: [_component(part, kinds, what, depth + 1) for part in parts]}
    rest = {name: found for name, found in value.items() if name != "type"}
    return {"type": kind, **_fields(rest, fields, f"{what}.{kind}")}


def _fields(value: object, known: "Fields", what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _refused(what, "is no object")
    for name in value:
        if name not in known:
            raise _refused(what, f"has the field {_shown(name)}, which is not known")
    return {name: _checked(known[name], found, f"{what}.{name}") for name, found in value.items()}


def _checked(check: Check, value: object, what: str) -> Any:
    try:
        return check(value)
    except ValueError:
        raise _refused(what, f"is {_shown(value)}, which is not taken") from None


def _text(longest: int = _MAX_TOKEN, shortest: int = 0) -> Check:
    def check(value: object) -> str:
        if type(value) is not str or not shortest <= len(value) <= longest:
            raise ValueError
        return value

    return check


def _whole(most: int) -> Check:
    def check(value: object) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError
        return value

    return check


def _one_of(*values: object) -> Check:
    def check(value: object) -> object:
        if not any(type(value) is type(known) and value == known for known in values):
            raise ValueError
        return value

    return check


def _or_null(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _list(most: int) -> Callable[[object], list[Any]]:
    def check(value: object) -> list[Any]:
        if type(value) is not list or len(value) > most:
            raise ValueError
        return value

    return check


def _several(each: Check, most: int) -> Check:
    return lambda value: [each(item) for item in _list(most)(value)]


def _pair(first: Check, second: Check) -> Check:
    def check(value: object) -> list[Any]:
        if type(value) is not list or len(value) != 2:
            raise ValueError
        return [first(value[0]), second(value[1])]

    return check


def _merge(value: object) -> Any:
    """Two tokens, as a list or with a space between them."""
    return _text(2 * _MAX_TOKEN + 1)(value) if type(value) is str else _pair(_text(), _text())(value)


def _score(value: object) -> float:
    if type(value) not in (int, float) or not -1e9 < value < 1e9:  # type: ignore[operator]
        raise ValueError
    return float(value)  # type: ignore[arg-type]


def _vocabulary(value: object) -> dict[str, int]:
    if type(value) is not dict or len(value) > MAX_IDS:
        raise ValueError
    return {_text()(token): _ID(number) for token, number in value.items()}


def _pattern(value: object) -> dict[str, str]:
    if type(value) is dict and len(value) == 1:
        if type(value.get("String")) is str:
            return {"String": _text(64, 1)(value["String"])}
        if type(value.get("Regex")) is str:
            patterns.check(value["Regex"])
            return {"Regex": value["Regex"]}
    raise ValueError


def _chars_map(value: object) -> Any:
    """SentencePiece's table of characters, in base64."""
    text = _text(_MAX_CHARS_MAP)(value)
    base64.b64decode(text, validate=True)
    return text


def _piece(value: object) -> dict[str, Any]:
    if type(value) is not dict or len(value) != 1 or next(iter(value)) not in ("SpecialToken", "Sequence"):
        raise ValueError
    [(kind, piece)] = value.items()
    if type(piece) is not dict or set(piece) != {"id", "type_id"}:
        raise ValueError
    named = _text()(piece["id"]) if kind == "SpecialToken" else _one_of("A", "B")(piece["id"])
    return {kind: {"id": named, "type_id": _whole(1)(piece["type_id"])}}


def _special(value: object) -> dict[str, Any]:
    if type(value) is not dict or len(value) > _MAX_PARTS:
        raise ValueError
    known = {"id": _text(), "ids": _several(_ID, _MAX_PARTS), "tokens": _several(_text(), _MAX_PARTS)}
    made = {}
    for name, token in value.items():
        if type(token) is not dict or set(token) != set(known):
            raise ValueError
        made[_text()(name)] = {key: check(token[key]) for key, check in known.items()}
    return made


_FLAG = _one_of(True, False)
_ID = _whole(MAX_IDS - 1)
_BEHAVIOR = _one_of("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_TOKEN = _or_null(_text())

Fields = Mapping[str, Check]
Kinds = Mapping[str, Fields | str]
"""The fields of every type; of a sequence the name of its list."""

_ADDED: Fields = {
    "id": _ID,
    "content": _text(shortest=1),
    **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), _FLAG),
}
_BYTES: Fields = dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), _FLAG)
_NORMALIZERS: Kinds = {
    "Sequence": "normalizers",
    "BertNormalizer": {
        **dict.fromkeys(("clean_text", "handle_chinese_chars", "lowercase"), _FLAG),
        "strip_accents": _or_null(_FLAG),
    },
    "Strip": dict.fromkeys(("strip_left", "strip_right"), _FLAG),
    "Prepend": {"prepend": _text(_MAX_PARTS)},
    "Replace": {"pattern": _pattern, "content": _text(_MAX_PARTS)},
    "Precompiled": {"precompiled_charsmap": _chars_map},
    **{kind: {} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel")},
}
_PRE_TOKENIZERS: Kinds = {
    "Sequence": "pretokenizers",
    "ByteLevel": _BYTES,
    "Split": {"pattern": _pattern, "behavior": _BEHAVIOR, "invert": _FLAG},
    "Punctuation": {"behavior": _BEHAVIOR},
    "Digits": {"individual_digits": _FLAG},
    "CharDelimiterSplit": {"delimiter": _text(1, 1)},
    "Metaspace": {
        "replacement": _text(1, 1),
        "str_rep": _text(1, 1),
        "prepend_scheme": _one_of("always", "first", "never"),
        **dict.fromkeys(("add_prefix_space", "split"), _FLAG),
    },
    **{kind: {} for kind in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts")},
}
_ENDS: Fields = {"sep": _pair(_text(), _ID), "cls": _pair(_text(), _ID)}
_PROCESSORS: Kinds = {
    "Sequence": "processors",
    "ByteLevel": _BYTES,
    "BertProcessing": _ENDS,
    "RobertaProcessing": {**_ENDS, "trim_offsets": _FLAG, "add_prefix_space": _FLAG},
    "TemplateProcessing": {
        "single": _several(_piece, _MAX_PARTS),
        "pair": _several(_piece, _MAX_PARTS),
        "special_tokens": _special,
    },
}
_MODELS: Kinds = {
    "BPE": {
        "dropout": _one_of(None),
        **dict.fromkeys(("unk_token", "continuing_subword_prefix", "end_of_word_suffix"), _TOKEN),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), _FLAG),
        "vocab": _vocabulary,
        "merges": _several(_merge, _MAX_MERGES),
    },
    "WordPiece": {
        "unk_token": _text(),
        "continuing_subword_prefix": _text(),
        "max_input_chars_per_word": _whole(_MAX_TOKEN),
        "vocab": _vocabulary,
    },
    "WordLevel": {"unk_token": _text(), "vocab": _vocabulary},
    "Unigram": {
        "unk_id": _or_null(_ID),
        "byte_fallback": _FLAG,
        "vocab": _several(_pair(_text(), _score), MAX_IDS),
    },
}


def _ids(vocabulary: dict[str, int] | list[Any]) -> dict[str, int]:
    if isinstance(vocabulary, dict):
        return vocabulary
    return {token: number for number, (token, _) in enumerate(vocabulary)}


def _demand_little_growth(normalizer: Mapping[str, Any] | None) -> None:
    """Replacements multiply: a pattern may match before every character."""
    growth, open_ = 1, [normalizer]
    while open_:
        part = open_.pop() or {}
        open_ += part.get("normalizers", [])
        if part.get("type") == "Replace":
            growth *= max(1, len(part["content"])) + ("Regex" in part["pattern"])
    if growth > _MAX_GROWTH:
        raise _refused("normalizer", f"may make a text {growth} times as long")


def _shown(value: object) -> str:
    return show(value) if isinstance(value, str) else f"of type {type(value).__name__}"


def _refused(what: str, why: str) -> Rejected:
    return Rejected(
        "tokenizer_component",
        f"In tokenizer.json, {what} {why}.",
        hint=patterns.HINT,
        field="tokenizer.json",
    )
