"""The protocol between a worker and its child: one order in, JSON lines out.

The child gets a workspace folder and nothing else: no database, no broker, no blob store.

    workspace/order.json          the `Order`
    workspace/inputs/{role}       the uploads: "model", "train", "test", or "upload" for an inspection
    workspace/latencies.json      what the machine's layers were timed to take: by signature, then by form
    workspace/stages/{stage}/     the files a finished stage left, its checkpoint, or an unfinished one saved
    workspace/artifacts/          what the package stage made for the user
    workspace/result.json         an inspection's summary, or a job's report
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from app.contract.base import Contract
from app.contract.problem import Notice, Problem
from app.contract.spec import JobSpec
from app.contract.status import Stage

Kind = Literal["compress", "inspect_model", "inspect_dataset"]


class Order(Contract):
    """What the child is to do.

    `formats` gives each input's format by role (`{"model": "pt2", "train": "npz"}`), `spec` is a compression
    job's, `done` are the stages whose checkpoints lie in the workspace, `threads` is at least 1.
    """

    job_id: str
    kind: Kind
    attempt: int
    spec: JobSpec | None = None
    formats: dict[str, str] = {}
    done: list[Stage] = []
    threads: int = 1


class StageStarted(Contract):
    """A stage begins."""

    type: Literal["stage_started"] = "stage_started"
    stage: Stage


class Advanced(Contract):
    """Progress of the whole job in [0, 1]."""

    type: Literal["advanced"] = "advanced"
    fraction: float
    eta_seconds: float | None = None


class StageSaved(Contract):
    """The folder of an unfinished stage holds something that another attempt can go on from. The child goes
    on writing there: whether a file is whole, the next one must be able to tell."""

    type: Literal["stage_saved"] = "stage_saved"
    stage: Stage


class StageFinished(Contract):
    """A stage's checkpoint is complete in its folder."""

    type: Literal["stage_finished"] = "stage_finished"
    stage: Stage


class Noticed(Contract):
    """Something for the job's warnings."""

    type: Literal["noticed"] = "noticed"
    notice: Notice


class Timed(Contract):
    """Milliseconds of a layer's calls, dense and in some forms, for whoever meets the same calls again on
    this machine. `signature` stands for the calls."""

    type: Literal["timed"] = "timed"
    signature: str
    ms: dict[str, float]


class Described(Contract):
    """`result.json` says what an upload is; what may take long is still to be added to it."""

    type: Literal["described"] = "described"


class Succeeded(Contract):
    """`result.json` (and the artifacts) are complete."""

    type: Literal["succeeded"] = "succeeded"


class Failed(Contract):
    """The user's input cannot be worked on; not worth another attempt."""

    type: Literal["failed"] = "failed"
    problem: Problem


Message = Annotated[
    StageStarted | Advanced | StageSaved | StageFinished | Noticed | Timed | Described | Succeeded | Failed,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Message)


def parse(line: str) -> Message:
    """One line of the child's output; raises `pydantic.ValidationError`."""
    message: Message = _ADAPTER.validate_json(line)
    return message
