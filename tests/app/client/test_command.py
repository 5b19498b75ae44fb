from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner, Result

from app.client import Client
from app.client.command import compress, plan
from app.client.options import RankSelection
from app.comparison import MINUS
from app.contract.spec import Ranks
from app.keys.service import BOOTSTRAP_FILE
from app.settings import get_settings
from tests.app.client.service import KEY, WEIGHTS, Service, problem

STATES: list[dict[str, Any]] = [
    {"status": "running", "stage": "decompose", "progress": {"fraction": 0.4, "eta_seconds": 75}},
    {"status": "succeeded", "stage": "package", "progress": {"fraction": 1.0}},
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("model.pt2", "train.npz", "test.npz"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def run(
    service: Service, *arguments: str, key: str | None = KEY, command: Callable[..., None] = compress
) -> Result:
    cli = typer.Typer()
    cli.command()(command)
    environment = {"RANKFOLD_URL": service.url, "RANKFOLD_KEY": key}
    return CliRunner().invoke(cli, ["model.pt2", *arguments], env=environment)


def test_before_and_after_are_printed_and_the_artifacts_fetched(service: Service, files: Path) -> None:
    service.states = list(STATES)
    result = run(service, "--train", "train.npz", "--test", "test.npz", "--epochs", "2", "-o", "small")
    assert result.exit_code == 0, result.output
    assert (files / "small" / "model.pt2").read_bytes() == WEIGHTS
    for words in (
        "659 k",
        "300 k",
        f"{MINUS}54.5 %",
        "36.4 M",
        "91.3 % [90.0, 92.5]",
        f"{MINUS}11.30 points",
        "trade off",
    ):
        assert words in result.output
    assert "decompose" in result.output
    assert "layers.3.conv2" not in result.output
    (job,) = service.jobs.values()
    assert job["finetune"] == {"epochs": 2}
    assert job["target"] == {"of": "macs"}
    assert [service.uploads[job["data"][role]]["name"] for role in ("train", "test")] == [
        "train.npz",
        "test.npz",
    ]


def test_int8_forms_can_be_asked_for(service: Service, files: Path) -> None:
    service.states = list(STATES)
    result = run(service, "--quantize", "dynamic-int8")
    assert result.exit_code == 0, result.output
    (job,) = service.jobs.values()
    assert job["quantize"] == "dynamic-int8"
    assert "as int8" not in result.output  # this report is of an earlier version


def test_the_length_of_rows_of_text_goes_with_the_data(service: Service, files: Path) -> None:
    service.states = list(STATES)
    result = run(service, "--train", "train.npz", "--length", "32")
    assert result.exit_code == 0, result.output
    (job,) = service.jobs.values()
    assert job["data"]["length"] == 32
    assert run(service, "--length", "32", command=plan).exit_code == 0
    assert service.planned[0].get("data") is None


def test_layers_are_printed_on_request(service: Service, files: Path) -> None:
    service.states = list(STATES)
    result = run(service, "--layers")
    assert "layers.3.conv2" in result.output
    assert "0.200 → 0.100" in result.output


def test_a_wrong_option_is_told_before_anything_is_uploaded(service: Service, files: Path) -> None:
    result = run(service, "--keep", "2")
    assert result.exit_code == 1
    assert "target.keep" in result.output
    assert service.uploads == {}


def test_a_plan_is_printed_for_every_budget_and_nothing_is_run(service: Service, files: Path) -> None:
    result = run(service, "--keep", "0.5", "--keep", "0.25", "--method", "tucker", command=plan)
    assert result.exit_code == 0, result.output
    for words in (
        "keep 0.5: 300 k parameters, 18.2 M MACs",
        "layers.3.conv2",
        "tucker",
        "64, 48",
        "147 k → 60.0 k",
        "7.23 M → 3.00 M",
        "0.062",
        "layers.0: No cheaper form is [worth] it.",
        "keep 0.25: 150 k parameters, 9.10 M MACs",
    ):
        assert words in result.output
    [asked] = service.planned
    assert asked["target"] == {"of": "macs", "keep": [0.5, 0.25]}
    assert asked["methods"] == ["tucker"]
    assert [stored["name"] for stored in service.uploads.values()] == ["model.pt2"]
    assert service.jobs == {}
    assert not (files / "out").exists()


def test_a_plan_takes_the_options_of_a_job() -> None:
    own = set(signature(compress).parameters) - set(signature(plan).parameters)
    assert own == {"layers", "out"}


def test_a_failed_job_ends_with_its_problem_and_status_one(service: Service, files: Path) -> None:
    told = problem("nothing_to_compress", "No layer can be made smaller.", 422, hint="Keep more.")[1]
    service.states = [{"status": "failed", "problem": told}]
    result = run(service)
    assert result.exit_code == 1
    assert "No layer can be made smaller." in result.output
    assert "Keep more." in result.output


def test_warnings_are_printed_and_those_of_layers_counted(service: Service, files: Path) -> None:
    general = {"code": "one_data_set", "detail": "It was split [into two]."}
    dense = {"code": "kept_dense", "detail": "It stays dense.", "layer": "a.b"}
    service.states = [{**STATES[-1], "warnings": [general, dense, dense]}]
    output = run(service).output
    assert "It was split [into two]." in output
    assert "2 layer(s) stay as they are" in output
    assert "It stays dense." not in output


def test_the_key_of_the_data_folder_is_taken_where_none_is_given(
    service: Service, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKFOLD_DATA_DIR", str(files))
    get_settings.cache_clear()
    service.states = list(STATES)
    assert "rankfold keys" in run(service, key=None).output
    (files / BOOTSTRAP_FILE).write_text(KEY + "\n")
    assert run(service, key=None).exit_code == 0
    get_settings.cache_clear()


def test_ctrl_c_asks_the_service_to_cancel_the_job(
    service: Service, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_client: Client, _job_id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "follow", interrupted)
    result = run(service)
    assert result.exit_code != 0
    assert service.cancelled


def test_every_rank_selection_but_by_hand_can_be_asked_for() -> None:
    selections = {
        get_args(kind.model_fields["selection"].annotation)[0] for kind in get_args(get_args(Ranks)[0])
    }
    assert selections == {*get_args(RankSelection), "explicit"}
