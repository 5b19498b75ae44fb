"""The console command, run as users run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "RANKFOLD_DATA_DIR": str(tmp_path / "data")}


def rankfold(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_settings_are_listed_without_secrets(environment: dict[str, str]) -> None:
    secrets = {
        "RANKFOLD_BOOTSTRAP_KEY": "rk_very_secret",
        "RANKFOLD_DATABASE_URL": "postgresql://user:hidden@db.example/rankfold",
    }
    listed = rankfold(environment | secrets, "settings").stdout
    assert "RANKFOLD_MAX_ATTEMPTS" in listed
    assert "db.example/rankfold" in listed
    assert "rk_very_secret" not in listed
    assert "hidden" not in listed


def test_a_key_is_made_listed_and_revoked(environment: dict[str, str]) -> None:
    assert rankfold(environment, "migrate").returncode == 0
    key_id, secret = rankfold(environment, "keys", "create", "laptop").stdout.split()
    listed = rankfold(environment, "keys", "list").stdout
    assert (key_id in listed, "laptop" in listed, secret in listed) == (True, True, False)
    assert rankfold(environment, "keys", "revoke", key_id).returncode == 0
    assert "revoked" in rankfold(environment, "keys", "list").stdout


def test_an_unknown_key_cannot_be_revoked(environment: dict[str, str]) -> None:
    rankfold(environment, "migrate")
    answer = rankfold(environment, "keys", "revoke", "key_unknown")
    assert (answer.returncode, "key_unknown" in answer.stderr) == (1, True)


@pytest.mark.parametrize("module", ["app.cli", "workers.tasks"])
def test_neither_the_command_nor_the_celery_process_imports_torch(
    environment: dict[str, str], module: str
) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'onnx', 'numpy'}} & sys.modules.keys()))"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_the_command_starts_without_the_server_libraries(environment: dict[str, str]) -> None:
    code = "import sys, app.cli; print(sorted({'uvicorn', 'celery', 'fastapi'} & sys.modules.keys()))"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
