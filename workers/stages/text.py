"""Raw text as the rows of a job: tokenised by its model's own tokenizer, once for a whole attempt."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from app.contract.spec import JobSpec, Task
from workers.engine.admit.tokenizer import Tokenizer
from workers.engine.data import TARGET
from workers.engine.errors import EngineError
from workers.engine.formats import text
from workers.engine.formats.hf import tokenise
from workers.engine.formats.imported import Imported
from workers.engine.graph.network import Dimension, Network
from workers.engine.rows import Rows

_LENGTH = 128  # tokens
_LEAST_ROWS = 2  # to have a confidence interval


class Corpus:
    """The text of one role, `train` or `test`, for a model; what is made of it is kept in `folder`.

    Raises `EngineError` where the model has no tokenizer (`no_tokenizer`).
    """

    def __init__(
        self, spec: JobSpec, role: str, model: Path, imported: Imported, file: Path, folder: Path
    ) -> None:
        if imported.tokenizer is None:
            raise EngineError(
                "no_tokenizer",
                "Raw text needs a model that came with its tokenizer.json.",
                hint="Upload the text as tokens.",
                field=f"data.{role}",
            )
        self._role, self._model, self._file, self._folder = role, model, file, folder
        self._network, self._tokenizer = imported.network, imported.tokenizer
        self._predicts = spec.task is Task.LANGUAGE_MODELING
        most = longest(self._network, self._tokenizer)
        self._length = spec.data.length or min(_LENGTH, most or _LENGTH)

    def rows(self) -> dict[str, Rows]:
        """Arrays by the names of the network's inputs, and the target of language modeling.

        Raises `EngineError`: `dataset_too_small`, and what tokenising raises.
        """
        arrays = self._windows() if self._predicts else self._lines()
        tokens = arrays["input_ids"]
        other = {"attention_mask": 1, "token_type_ids": 0}
        made = {name: text.constant(len(tokens), tokens, value) for name, value in other.items()} | arrays
        known = {spec.name for spec in self._network.inputs} | {TARGET}
        return {name: array for name, array in made.items() if name in known}

    def describe(self) -> str:
        """What became of the text, in a sentence."""
        tokens = self.rows()["input_ids"]
        if self._predicts:
            return f"The text of data.{self._role} is {len(tokens)} rows of {self._length} tokens."
        cut = self._made()["cut"]
        also = f"; {cut} lines were longer, and are cut" if cut else ""
        lengths = f"of at most {self._length} tokens, padded to {tokens.shape[1]}"
        return f"The text of data.{self._role} is {len(tokens)} rows {lengths}{also}."

    def _windows(self) -> dict[str, Rows]:
        count = (self._made()["tokens"] - 1) // self._length
        if count < _LEAST_ROWS:
            raise EngineError(
                "dataset_too_small",
                f"{self._made()['tokens']} tokens make fewer than {_LEAST_ROWS} rows of {self._length}.",
                hint="Give more text, or a smaller `data.length`.",
                field=f"data.{self._role}",
            )
        inputs, target = text.windows(self._ids, self._made()["tokens"], self._length)
        return {"input_ids": inputs, TARGET: target}

    def _lines(self) -> dict[str, Rows]:
        self._made()
        lengths = np.fromfile(self._lengths, np.int32)
        if not len(lengths):
            raise EngineError(
                "dataset_too_small",
                "The tokenizer makes no tokens of the text.",
                hint="Check that the text is in a script that the tokenizer knows.",
                field=f"data.{self._role}",
            )
        ids, mask = text.padded(self._ids, lengths, self._tokenizer.pad or 0)
        return {"input_ids": ids, "attention_mask": mask}

    def _made(self) -> Mapping[str, int]:
        """The numbers of tokens, or of lines that were cut; the text is tokenised for the first that asks."""
        done = self._folder / f"{self._role}.json"
        if not done.exists():
            self._folder.mkdir(exist_ok=True)
            if self._predicts:
                found = {"tokens": tokenise.write_stream(self._model, self._file, self._ids)}
            else:
                files = (self._ids, self._lengths)
                found = {"cut": tokenise.write_lines(self._model, self._file, *files, self._length)}
            done.write_text(json.dumps(found))
        made: dict[str, int] = json.loads(done.read_text())
        return made

    @property
    def _ids(self) -> Path:
        return self._folder / f"{self._role}.ids"

    @property
    def _lengths(self) -> Path:
        return self._folder / f"{self._role}.lengths"


def longest(network: Network, tokenizer: Tokenizer) -> int | None:
    """The most tokens that a network takes in a row, and its tokenizer gives; None without a bound."""
    lengths = [spec.shape[1] for spec in network.inputs if spec.name == "input_ids"]
    most = [length.maximum for length in lengths if isinstance(length, Dimension)] + [tokenizer.longest]
    return min((bound for bound in most if bound is not None), default=None)
