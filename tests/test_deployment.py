"""The container files agree with each other, with the settings and with the Compose specification."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from typer.testing import CliRunner

from app.cli import cli
from app.settings import Settings

ROOT = Path(__file__).parents[1]
INTERPOLATION = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}")
ONE_SHOT = {"migrate"}
S3_VARIABLES = {"AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def text(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as Compose sees it: merged, with every unset variable at its default."""
    filled = INTERPOLATION.sub(lambda match: match["default"] or "filled-in", text("docker-compose.yml"))
    document: dict[str, Any] = yaml.safe_load(filled)
    return document


def is_valid(document: dict[str, Any]) -> bool:
    try:
        PyCompose.from_json(json.dumps(document)).validate()
    except ValueError:
        return False
    return True


def test_it_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    assert is_valid(compose)


@pytest.mark.parametrize(
    "damage",
    [
        {"healtcheck": {}},
        {"networks": ["unknown"]},
        {"depends_on": {"redis": {"condition": "service_happy"}}},
        {"ports": ["eighty"]},
    ],
)
def test_the_check_of_the_specification_can_fail(compose: dict[str, Any], damage: dict[str, Any]) -> None:
    services = compose["services"]
    assert not is_valid({**compose, "services": {**services, "api": {**services["api"], **damage}}})


def test_the_docker_client_accepts_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no Docker client with Compose here")
    filled = re.sub(r"^(\w+)=$", r"\1=x", text(".env.example"), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(filled)
    command = [
        docker,
        "compose",
        "--file",
        str(ROOT / "docker-compose.yml"),
        "--env-file",
        str(tmp_path / ".env"),
    ]
    done = subprocess.run(
        [*command, "--profile", "gpu", "config", "--quiet"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_service_is_watched_or_ends_by_itself(compose: dict[str, Any]) -> None:
    unwatched = {name for name, service in compose["services"].items() if "healthcheck" not in service}
    assert unwatched == ONE_SHOT


def test_nobody_starts_before_what_they_need(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for needed, rule in service.get("depends_on", {}).items():
            ends = needed in ONE_SHOT
            assert rule["condition"] == ("service_completed_successfully" if ends else "service_healthy")
    for name in ("api", "worker-cpu", "worker-gpu"):
        assert set(services[name]["depends_on"]) == {"migrate", "redis", "store"}


def test_the_gpu_worker_asks_for_a_gpu_and_starts_only_on_request(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if "profiles" in service] == ["worker-gpu"]
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_images_are_pinned_by_version(compose: dict[str, Any]) -> None:
    images = {service["image"] for service in compose["services"].values()}
    images |= set(re.findall(r"^FROM (\S+:\S+)", text("Dockerfile"), flags=re.MULTILINE))
    assert len(images) >= 6
    for image in images:
        assert re.search(r":\d+(\.\d+)+(-\w+)*$", image), image


def test_every_build_target_is_in_the_dockerfile(compose: dict[str, Any]) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text("Dockerfile"), flags=re.MULTILINE))
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == {"api", "worker"}
    assert targets <= stages


def test_every_command_is_one_of_the_console_command(compose: dict[str, Any]) -> None:
    commands = [service["command"] for service in compose["services"].values() if "build" in service]
    assert sorted(command[0] for command in commands) == ["api", "migrate", "worker", "worker"]
    for command in commands:
        result = CliRunner().invoke(cli, [*command, "--help"])
        assert result.exit_code == 0, result.output


def test_the_api_image_has_no_numerics() -> None:
    pinned = set(re.findall(r"^([\w-]+)==", text("requirements/api.txt"), flags=re.MULTILINE))
    assert {"fastapi", "uvicorn"} <= pinned
    assert not pinned & {"torch", "numpy", "onnx", "onnxruntime", "tensorly"}


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    known = {f"RANKFOLD_{name.upper()}" for name in Settings.model_fields} | S3_VARIABLES
    for name in ("migrate", "api", "worker-cpu", "worker-gpu"):
        assert set(compose["services"][name]["environment"]) <= known
    in_dockerfile = set(re.findall(r"\b(RANKFOLD_\w+)=", text("Dockerfile")))
    assert in_dockerfile
    assert in_dockerfile <= known


def test_every_variable_to_fill_in_is_in_the_example_and_the_other_way_round() -> None:
    asked = {match["name"] for match in INTERPOLATION.finditer(text("docker-compose.yml"))}
    offered = set(re.findall(r"^(\w+)=", text(".env.example"), flags=re.MULTILINE))
    assert asked == offered


def test_no_secret_is_written_down() -> None:
    secret = re.compile(
        r"^\s*\w*(?:PASSWORD|SECRET\w*|BOOTSTRAP_KEY)[:=][ \t]*(?!\$\{\w+:\?)(\S+)", re.MULTILINE
    )
    for name in ("docker-compose.yml", "Dockerfile", ".env.example"):
        assert secret.search(text(name)) is None, name
    assert secret.search("services:\n  POSTGRES_PASSWORD: hunter2")


def test_every_volume_is_declared_and_used(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    assert sorted(mount.split(":")[0] for mount in mounts) == sorted(compose["volumes"])


def test_both_images_run_without_privileges() -> None:
    for stage in ("api", "worker"):
        part = re.split(rf"^FROM \S+ AS {stage}$", text("Dockerfile"), flags=re.MULTILINE)[1]
        part = part.split("\nFROM ")[0]
        assert "USER rankfold" in part
        assert part.index("USER rankfold") < part.index("ENTRYPOINT")
        assert f"requirements/{stage}.txt" in part


def test_workers_can_confine_jobs_and_must(compose: dict[str, Any]) -> None:
    image = re.split(r"^FROM base AS worker$", text("Dockerfile"), flags=re.MULTILINE)[1]
    pinned = set(re.findall(r"^([\w-]+)==", text("requirements/worker.txt"), flags=re.MULTILINE))
    assert "requirements/worker.txt" in image
    assert {"landlockpy", "seccompy"} <= pinned
    assert Settings(host="0.0.0.0").resolved_sandbox == "require"  # noqa: S104 -- as the image has it
    assert "RANKFOLD_HOST=0.0.0.0" in text("Dockerfile")
    for name in ("worker-cpu", "worker-gpu"):
        worker = compose["services"][name]
        assert worker["environment"]["RANKFOLD_SANDBOX"] == "require"
        assert worker["security_opt"] == ["no-new-privileges:true"]  # Docker's own seccomp profile stays
        assert worker["cap_drop"] == ["ALL"]
        assert worker["pids_limit"] > 0
        assert not worker.get("privileged")


def test_what_the_images_copy_is_let_through_by_dockerignore() -> None:
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", text("Dockerfile"), flags=re.MULTILINE)
    roots = {source.split("/")[0] for line in copied for source in line.split()}
    assert roots
    assert roots <= allowed
