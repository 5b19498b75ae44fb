"""What a reader of networks hands on."""

from dataclasses import dataclass

from workers.engine.graph.network import Network


@dataclass(frozen=True)
class Remark:
    """What a user should know about how a file was read; `code` is stable."""

    code: str
    detail: str


@dataclass(frozen=True)
class Imported:
    """A network, and the remarks on its file."""

    network: Network
    remarks: tuple[Remark, ...] = ()
