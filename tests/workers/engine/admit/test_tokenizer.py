"""Admission of tokenizers: what is not known, or not bounded, is not taken over."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.workers.engine import texts
from workers.engine.admit import tokenizer
from workers.engine.errors import Rejected

DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def admit(
    changes: Callable[[Any], None] = lambda _: None, source: str = "", *configs: Any
) -> tokenizer.Tokenizer:
    document = json.loads(source or texts.byte_pairs())
    changes(document)
    return tokenizer.admit(json.dumps(document).encode(), [json.dumps(config).encode() for config in configs])


def refusal(changes: Callable[[Any], None]) -> Rejected:
    with pytest.raises(Rejected) as refused:
        admit(changes)
    assert refused.value.field == "tokenizer.json"
    return refused.value


@pytest.mark.parametrize("make", [texts.byte_pairs, texts.word_pieces])
def test_what_is_admitted_makes_the_same_tokens(make: Callable[[], str]) -> None:
    ours, theirs = Tokenizer.from_str(admit(source=make()).document), Tokenizer.from_str(make())
    for line in [*texts.sentences(5, 3), "Émile\n\n  zzz 漢字"]:
        assert ours.encode(line).ids == theirs.encode(line).ids


@pytest.mark.parametrize("make", [texts.byte_pairs, texts.word_pieces])
def test_the_models_of_older_files_have_no_type(make: Callable[[], str]) -> None:
    older = admit(lambda document: document["model"].pop("type"), make())
    assert older == admit(source=make())


def test_a_unigram_is_admitted() -> None:
    vocabulary = [["<unk>", 0.0], ["▁the", -1.5], ["▁", -2], ["cat", -3.25]]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False}
    steps = [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    ]
    parts = {
        "model": model,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "added_tokens": [],
    }
    admitted = admit(lambda document: document.update(parts))
    assert admitted.ids == 4
    assert Tokenizer.from_str(admitted.document).encode("the cat").ids == [1, 2, 3]


def test_padding_and_length_are_what_the_files_beside_it_say() -> None:
    admitted = admit(lambda _: None, "", {"pad_token": {"content": "<pad>"}, "model_max_length": 77})
    assert (admitted.ids, admitted.pad, admitted.longest) == (40, 1, 77)
    admitted = admit(
        lambda _: None, "", {"pad_token": "nothing known", "model_max_length": 1e30}, {"pad_token": 3}
    )
    assert (admitted.pad, admitted.longest) == (None, None)


def nested(document: Any) -> None:
    for _ in range(4):
        document["normalizer"] = {
            "type": "Sequence",
            "normalizers": [document["normalizer"] or {"type": "NFC"}],
        }


def growing(document: Any) -> None:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 16}
    document["normalizer"] = {"type": "Sequence", "normalizers": [step] * 3}


@pytest.mark.parametrize(
    "changes",
    [
        lambda document: document.update(model={"type": "Mine", "vocab": {}}),
        lambda document: document.update(model=None),
        lambda document: document["model"].pop("vocab"),
        lambda document: document["model"].update(dropout=0.1),
        lambda document: document["model"].update(more=1),
        lambda document: document["model"]["vocab"].update(x=-1),
        lambda document: document["model"]["vocab"].update(x=1 << 40),
        lambda document: document["model"]["vocab"].update(x=True),
        lambda document: document["model"]["vocab"].update({"x" * 2000: 1}),
        lambda document: document["model"].update(merges=["a b", ["a", "b", "c"]]),
        lambda document: document.update(added_tokens={"a": 1}),
        lambda document: document.update(added_tokens=[{"id": 1, "content": ""}]),
        lambda document: document.update(pre_tokenizer={"type": "FixedLength", "length": 1}),
        lambda document: document.update(pre_tokenizer={"type": "Split", "pattern": "a"}),
        lambda document: document.update(pre_tokenizer="ByteLevel"),
        lambda document: document.update(
            pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits"}] * 99}
        ),
        lambda document: document.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}),
        lambda document: document.update(
            normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "a"}
        ),
        lambda document: document.update(
            post_processor={"type": "TemplateProcessing", "single": [{"Code": {}}]}
        ),
        nested,
        growing,
    ],
)
def test_what_is_not_known_or_not_bounded_is_refused(changes: Callable[[Any], None]) -> None:
    assert refusal(changes).code == "tokenizer_component"


@pytest.mark.parametrize("kind", ["pre_tokenizer", "normalizer"])
def test_regex_bombs_are_refused(kind: str) -> None:
    pattern = {"pattern": {"Regex": "(a+)+b"}}
    parts = {
        "pre_tokenizer": {"type": "Split", "behavior": "Isolated", "invert": False, **pattern},
        "normalizer": {"type": "Replace", "content": "a", **pattern},
    }
    assert refusal(lambda document: document.update({kind: parts[kind]})).code == "tokenizer_pattern"


@pytest.mark.parametrize(("data", "code"), [(b"{", "malformed"), (b"[]", "malformed"), (DEEP, "too_deep")])
def test_what_is_no_document_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        tokenizer.admit(data, [])
    assert refused.value.code == code
