"""The options that commands which describe a job have in common."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from app.client.client import ApiError
from app.contract.problem import Problem
from app.contract.spec import Decomposition, Device, JobSpec, Output, Quantization, Task

_UNKNOWN_YET = "mdl_" + "0" * 32

Budgeted = Literal["macs", "parameters", "latency"]
RankSelection = Literal["budget", "fraction", "energy", "vbmf", "cross_validation"]
"""Explicit ranks are given by layer rules, which commands have no options for."""


@dataclass(frozen=True)
class JobOptions:
    """What the command line says of a job, and where the service is."""

    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="the network, a .pt2, .onnx or .zip file")
    ]
    train: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="data to fit on, such as .npz")
    ] = None
    test: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="data to measure on, such as .npz")
    ] = None
    length: Annotated[int | None, typer.Option(help="tokens in a row, of raw text")] = None
    keep: Annotated[
        list[float] | None, typer.Option(help="fraction that remains; several give several candidates")
    ] = None
    of: Annotated[Budgeted, typer.Option(help="what the fraction is of")] = "macs"
    max_drop: Annotated[
        float | None, typer.Option(help="by how much the metric may fall; in place of --keep")
    ] = None
    task: Annotated[Task | None, typer.Option(help="what the network is for")] = None
    method: Annotated[list[Decomposition] | None, typer.Option(help="decompositions allowed")] = None
    rank_selection: Annotated[RankSelection, typer.Option(help="how ranks are chosen")] = "budget"
    epochs: Annotated[int | None, typer.Option(help="epochs of fine-tuning")] = None
    learning_rate: Annotated[float | None, typer.Option(help="of fine-tuning")] = None
    output: Annotated[list[Output] | None, typer.Option(help="formats to make")] = None
    quantize: Annotated[
        Quantization | None, typer.Option(help="form that every ONNX file is made in besides")
    ] = None
    seed: Annotated[int, typer.Option(help="seed of every random choice")] = 0
    device: Annotated[Device, typer.Option(help="where the job runs")] = Device.AUTO
    url: Annotated[str, typer.Option(envvar="RANKFOLD_URL", help="address of the service")] = ""
    key: Annotated[str, typer.Option(envvar="RANKFOLD_KEY", help="API key; else that of the data folder")] = (
        ""
    )

    @property
    def files(self) -> dict[str, Path | None]:
        """What is uploaded, by its role in the job."""
        return {"model": self.model, "train": self.train, "test": self.test}

    def spec(self, ids: dict[str, str] | None = None) -> JobSpec:
        """The job's body, by the ids of the files or before there are any; raises `ApiError` that names the
        field that is wrong."""
        model, *data = ((ids or {}).get(role) for role in self.files)
        sets = _given(dict(zip(("train", "test"), data, strict=True)))
        body = {
            "model": model or _UNKNOWN_YET,
            "data": sets and _given({**sets, "length": self.length}),
            "task": self.task,
            "target": _given({"of": self.of, "keep": self.keep, "max_drop": self.max_drop}),
            "methods": self.method,
            "ranks": {"selection": self.rank_selection},
            "finetune": _given({"epochs": self.epochs, "learning_rate": self.learning_rate}),
            "outputs": self.output,
            "quantize": self.quantize,
            "seed": self.seed,
            "device": self.device,
        }
        try:
            return JobSpec.model_validate(_given(body))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ApiError(Problem.of("invalid_request", f"{first['msg']}.", field=field)) from error


def with_job_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes each of the job's options by itself, made of one that takes them all at once as
    its first argument."""
    shared = inspect.signature(JobOptions).parameters
    _, *own = inspect.signature(command).parameters.values()

    def run(**values: Any) -> None:
        command(JobOptions(**{name: values.pop(name) for name in shared}), **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    signature = inspect.Signature([*shared.values(), *own])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what typer makes its options of
    return run


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, [], {})}
