"""What the API keys promise."""

import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy import Engine

from app.db.session import reading, writing
from app.db.tables import ApiKey
from app.keys import service
from app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def test_a_new_key_opens_the_door_and_only_its_digest_is_stored(engine: Engine) -> None:
    with writing(engine) as connection:
        key_id, secret = service.create(connection, "alice")
    assert secret.startswith("rk_")
    assert len(secret) >= 45
    assert service.verify(engine, secret) == key_id
    with reading(engine) as connection:
        assert secret not in str(connection.execute(sa.select(ApiKey.__table__)).all())


def test_an_unknown_secret_is_nobody(engine: Engine) -> None:
    with writing(engine) as connection:
        _, secret = service.create(connection, "alice")
    assert service.verify(engine, secret[:-1]) is None
    assert service.verify(engine, "") is None


def test_a_revoked_key_is_refused_at_once(engine: Engine) -> None:
    with writing(engine) as connection:
        key_id, secret = service.create(connection, "alice")
        assert service.revoke(connection, key_id)
        assert not service.revoke(connection, key_id)
        assert [key.revoked_at is not None for key in service.listed(connection)] == [True]
    assert service.verify(engine, secret) is None


def test_the_first_start_writes_a_private_key_file_once(engine: Engine, settings: Settings) -> None:
    secret = service.bootstrap(engine, settings)
    file = settings.data_dir / "bootstrap.key"
    assert secret is not None
    assert file.read_text().strip() == secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert service.verify(engine, secret) is not None
    assert service.bootstrap(engine, settings) is None
    assert file.read_text().strip() == secret


def test_a_database_with_keys_gets_no_key_file(engine: Engine, settings: Settings) -> None:
    with writing(engine) as connection:
        service.create(connection, "alice")
    assert service.bootstrap(engine, settings) is None
    assert not settings.data_dir.exists()


def test_a_configured_key_is_used_and_not_written_down(engine: Engine, settings: Settings) -> None:
    settings = settings.model_copy(update={"bootstrap_key": SecretStr("rk_configured")})
    assert service.bootstrap(engine, settings) == "rk_configured"
    assert service.bootstrap(engine, settings) is None
    assert service.verify(engine, "rk_configured") is not None
    assert not settings.data_dir.exists()


def test_an_empty_setting_counts_as_unset(engine: Engine, settings: Settings) -> None:
    settings = settings.model_copy(update={"bootstrap_key": SecretStr("")})
    secret = service.bootstrap(engine, settings)
    assert secret is not None
    assert secret.startswith("rk_")


def test_a_revoked_bootstrap_key_is_not_revived(engine: Engine, settings: Settings) -> None:
    secret = service.bootstrap(engine, settings)
    assert secret is not None
    with writing(engine) as connection:
        service.revoke(connection, service.listed(connection)[0].id)
    assert service.bootstrap(engine, settings) is None
    assert service.verify(engine, secret) is None
