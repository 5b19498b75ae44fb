"""What a reader of networks hands on."""

from dataclasses import dataclass

from workers.engine.admit.tokenizer import Tokenizer
from workers.engine.graph.network import Network


@dataclass(frozen=True)
class Remark:
    """What a user should know about how a file was read; `code` is stable."""

    code: str
    detail: str


@dataclass(frozen=True)
class Imported:
    """A network, and the remarks on its file; of a Hugging Face folder the class in transformers, and
    the tokenizer of a model that takes nothing but tokens."""

    network: Network
    remarks: tuple[Remark, ...] = ()
    architecture: str | None = None
    tokenizer: Tokenizer | None = None
