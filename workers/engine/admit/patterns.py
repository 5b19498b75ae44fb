"""Admission of regular expressions that strangers' tokenizers split text by: none that backtracks for long.

Taken are sequences and alternatives of characters, classes and groups. What repeats is a single character or
class, or a fixed sequence of them; few choices follow each other. So no text can be matched in exponentially
many ways.
"""

import re
from typing import NamedTuple

from workers.engine.admit.archive import show
from workers.engine.errors import Rejected

HINT = "Leave tokenizer.json out of the folder: only raw text needs it."
"""What to do about any tokenizer that is not taken."""

_LONGEST = 1000  # characters
_MOST_REPEATS = 16  # of a bounded repetition
_UNBOUNDED = 2  # repetitions in a row
_CHOICES = 5  # in a row: optional parts, repetitions of varying length, alternatives
_DEEPEST = 8  # groups within groups

_ESCAPE = re.compile(
    r"\\(?:[sSdDwWrntfv]|[pP]\{\^?[A-Za-z_]{1,40}\}|x\{[0-9A-Fa-f]{1,6}\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}"
    r"|[^0-9A-Za-z])",
    re.DOTALL,
)
_CLASS = re.compile(rf"\[\^?\]?(?:{_ESCAPE.pattern}|[^\[\]\\&]|&(?!&))*\]", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:i?:|[=!]))?")
_TIMES = re.compile(r"(?:[*+?]|\{(\d{1,4})(?:(,)(\d{1,4})?)?\})([?+]?)")


class _Found(NamedTuple):
    """What was read: where it ends, and the most choices on a way through it: repetitions without bound, and
    choices of any kind, alternatives included."""

    end: int
    unbounded: int = 0
    choices: int = 0


def check(pattern: str) -> None:
    """Raise `Rejected` (`tokenizer_pattern`) for a pattern that is not known to be matched fast."""
    if len(pattern) > _LONGEST:
        raise _refused(pattern, "it is too long")
    if _alternatives(pattern, 0, 0).end < len(pattern):
        raise _refused(pattern, "a parenthesis is closed that was not opened")


def _alternatives(pattern: str, at: int, depth: int) -> _Found:
    if depth > _DEEPEST:
        raise _refused(pattern, "its groups are nested too deeply")
    found = [_sequence(pattern, at, depth)]
    while pattern[found[-1].end : found[-1].end + 1] == "|":
        found.append(_sequence(pattern, found[-1].end + 1, depth))
    choices = max(each.choices for each in found) + (len(found) > 1)
    return _Found(found[-1].end, max(each.unbounded for each in found), choices)


def _sequence(pattern: str, at: int, depth: int) -> _Found:
    unbounded = choices = 0
    while at < len(pattern) and pattern[at] not in "|)":
        item = _repeated(pattern, _item(pattern, at, depth))
        at, unbounded, choices = item.end, unbounded + item.unbounded, choices + item.choices
    if unbounded > _UNBOUNDED or choices > _CHOICES:
        raise _refused(pattern, "too many repetitions or alternatives follow each other")
    return _Found(at, unbounded, choices)


def _repeated(pattern: str, item: _Found) -> _Found:
    """An item with the repetition that follows it, if one does."""
    times = _TIMES.match(pattern, item.end)
    if times is None:
        return item
    if times[0][0] != "?" and item.choices:
        raise _refused(pattern, "it repeats what repeats or has alternatives")
    most = times[3] if times[2] else times[1]
    if most is not None and int(most) > _MOST_REPEATS:
        raise _refused(pattern, f"it repeats more than {_MOST_REPEATS} times")
    unbounded = most is None and times[0][0] != "?"
    exact = times[1] is not None and not times[2]
    return _Found(times.end(), item.unbounded + unbounded, item.choices + (not exact))


def _item(pattern: str, at: int, depth: int) -> _Found:
    """One character, class or group."""
    character = pattern[at]
    if character == "(":
        return _group(pattern, at, depth)
    if character in "\\[":
        known = (_ESCAPE if character == "\\" else _CLASS).match(pattern, at)
        if known is None:
            raise _refused(pattern, "it has an escape or a class that is not taken")
        return _Found(known.end())
    if character in "*+?{":
        raise _refused(pattern, "it repeats nothing")
    return _Found(at + 1)


def _group(pattern: str, at: int, depth: int) -> _Found:
    opened = _GROUP.match(pattern, at)
    if opened is None or pattern[opened.end() : opened.end() + 1] == "?":
        raise _refused(pattern, "it has a kind of group that is not taken")
    inside = _alternatives(pattern, opened.end(), depth + 1)
    if pattern[inside.end : inside.end + 1] != ")":
        raise _refused(pattern, "a parenthesis is not closed")
    return inside._replace(end=inside.end + 1)


def _refused(pattern: str, why: str) -> Rejected:
    return Rejected(
        "tokenizer_pattern",
        f"The pattern {show(pattern)} of tokenizer.json is not taken: {why}.",
        hint=HINT,
        field="tokenizer.json",
    )
