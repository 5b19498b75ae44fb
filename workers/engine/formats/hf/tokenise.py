"""Raw text as tokens, by the tokenizer of a model's own folder. Imports no torch.

Strangers' tokenizers run for as long as they like: what uses one is called in a clean process, by the clock.
"""

from array import array
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from workers.engine import clean_process
from workers.engine.admit import hf_folder, patterns
from workers.engine.clean_process import ProcessFailed
from workers.engine.errors import EngineError, Rejected
from workers.engine.formats import text as text_format

_LINES = 256  # at a time
_TRIED_SECONDS = 20.0
_TRIED = (" ", "a", "1", "\n", "'", "\t ", "a ", "A1", "é", "漢", "\u0301", ".,", "\u200d")
_TRIED_CHARACTERS = 4096
_SECONDS, _BYTES_A_SECOND = 60.0, 20_000  # two orders slower than tokenizers are


def try_out(model: Path) -> None:
    """Run the tokenizer of the folder in the zip `model` on long runs of characters, in a clean process.

    Raises `Rejected`: `tokenizer_unusable`, `tokenizer_too_slow`.
    """
    try:
        clean_process.run(probe, {"model": str(model)}, _TRIED_SECONDS)
    except EngineError as error:
        timed_out = error.code == "process_timed_out"
        raise Rejected(
            "tokenizer_too_slow" if timed_out else "tokenizer_unusable",
            f"The tokenizer took more than {_TRIED_SECONDS:g} seconds for a few pages of text."
            if timed_out
            else "The tokenizer of tokenizer.json does not run.",
            hint=patterns.HINT,
            field="tokenizer.json",
        ) from error


def write_stream(model: Path, text: Path, ids: Path) -> int:
    """Write the tokens of a whole text as int32 to `ids`, without special tokens; how many.

    Raises `EngineError`: `cannot_tokenise`, `tokenizer_too_slow`.
    """
    arguments = {"model": str(model), "text": str(text), "ids": str(ids)}
    return int(_run(stream, arguments, text)["tokens"])


def write_lines(model: Path, text: Path, ids: Path, lengths: Path, most: int) -> int:
    """Write the tokens of every line that has any as int32 to `ids`, one after the other, special ones
    included, at most `most` of each, and their numbers as int32 to `lengths`; how many lines were cut.

    Raises `EngineError`: `cannot_tokenise`, `tokenizer_too_slow`.
    """
    arguments = {
        "model": str(model),
        "text": str(text),
        "ids": str(ids),
        "lengths": str(lengths),
        "most": most,
    }
    return int(_run(lines, arguments, text)["cut"])


def _run(function: Any, arguments: dict[str, Any], text: Path) -> Any:
    try:
        return clean_process.run(function, arguments, _SECONDS + text.stat().st_size / _BYTES_A_SECOND)
    except ProcessFailed as error:
        timed_out = error.code == "process_timed_out"
        raise EngineError(
            "tokenizer_too_slow" if timed_out else "cannot_tokenise",
            f"The tokenizer {'took too long for' if timed_out else 'could not be run on'} the text.",
            hint="Upload the text as tokens.",
            field="data",
        ) from error


def probe(model: str) -> None:
    """Called in the clean process."""
    tokenizer = _tokenizer(model)
    for characters in _TRIED:
        tokenizer.encode(characters * (_TRIED_CHARACTERS // len(characters)))


def stream(model: str, text: str, ids: str) -> dict[str, int]:
    """Called in the clean process."""
    tokenizer, count = _tokenizer(model), 0
    with Path(ids).open("wb") as file:
        for part in text_format.parts(Path(text)):
            found = tokenizer.encode(part, add_special_tokens=False).ids
            array("i", found).tofile(file)
            count += len(found)
    return {"tokens": count}


def lines(model: str, text: str, ids: str, lengths: str, most: int) -> dict[str, int]:
    """Called in the clean process."""
    tokenizer, cut = _tokenizer(model), 0
    tokenizer.enable_truncation(most)
    with Path(ids).open("wb") as tokens, Path(lengths).open("wb") as numbers:
        texts = text_format.lines(Path(text))
        while batch := list(islice(texts, _LINES)):
            found = [each for each in tokenizer.encode_batch(batch) if each.ids]
            cut += sum(bool(each.overflowing) for each in found)
            for each in found:
                array("i", each.ids).tofile(tokens)
            array("i", [len(each.ids) for each in found]).tofile(numbers)
    return {"cut": cut}


def _tokenizer(model: str) -> Tokenizer:
    with hf_folder.admit(Path(model)) as (_, archive):
        admitted = hf_folder.tokenizer(archive)
    if admitted is None:
        raise EngineError("no_tokenizer", "The model's folder has no tokenizer.json.", field="data")
    return Tokenizer.from_str(admitted.document)
