"""Regular expressions of tokenizers: those in use are taken, those that may backtrack for long are not."""

import time

import pytest
from tokenizers import Regex, pre_tokenizers

from workers.engine.admit import patterns
from workers.engine.errors import Rejected

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    "pattern", [GPT2, LLAMA3, CL100K, O200K, r" {2,}", r"[一-龥぀-ヿ]+", " ", "(?:ab)*c{2}"]
)
def test_patterns_in_use_are_taken_and_fast(pattern: str) -> None:
    patterns.check(pattern)
    splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
    for character in (" ", "a", "1", "\n", "'", "ab"):
        began = time.perf_counter()
        splitter.pre_tokenize_str(character * 2000)
        assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|a)*b",
        "(a|ab)(c|bcd)(d*)+",
        r"(\w+\s?)*$",
        r"(?:\w*){9}",
        "a?" * 30 + "a" * 30,
        "(a|a)" * 20 + "b",
        "a*a*a*b",
        "(a{1,16}){1,16}",
        "a{1000}",
        "a{0,99999}",
        r"(a)\1",
        r"(?<=a+)b",
        "(?>a)",
        "(?#a)",
        "(?<n>a)",
        r"\g<n>",
        r"\X",
        "(" * 50 + "a" + ")" * 50,
        "(a",
        "a)",
        "[a",
        "[[a]b]",
        "[a&&b]",
        "*a",
        "a**",
        "\\",
        "a" * 1001,
    ],
)
def test_patterns_that_may_take_long_are_refused(pattern: str) -> None:
    began = time.perf_counter()
    with pytest.raises(Rejected) as refused:
        patterns.check(pattern)
    assert time.perf_counter() - began < 0.5
    assert (refused.value.code, refused.value.field) == ("tokenizer_pattern", "tokenizer.json")


def test_a_pattern_that_is_refused_does_take_long() -> None:
    with pytest.raises(Rejected):
        patterns.check("(?:a|a)*[^a]")
    splitter, times = pre_tokenizers.Split(Regex("(?:a|a)*[^a]"), "isolated"), []
    for length in (10, 18):
        began = time.perf_counter()
        splitter.pre_tokenize_str("a" * length)
        times.append(time.perf_counter() - began)
    assert times[1] > 8 * times[0]  # 2⁸ times the ways
