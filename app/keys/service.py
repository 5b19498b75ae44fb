"""The rules of API keys: 256 random bits, shown once, kept as a SHA-256."""

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine

from app.db.session import reading, writing
from app.keys import repository
from app.settings import Settings

BOOTSTRAP_FILE = "bootstrap.key"


@dataclass(frozen=True)
class Key:
    """A key without its secret; times in seconds since 1970 UTC."""

    id: str
    name: str
    created_at: float
    revoked_at: float | None


def create(connection: Connection, name: str) -> tuple[str, str]:
    """Make a key; its id and its secret, which cannot be had again."""
    secret = _random()
    return repository.insert(connection, name=name, sha256=_digest(secret)), secret


def listed(connection: Connection) -> Sequence[Key]:
    """Every key, oldest first, revoked ones too."""
    return [Key(*row) for row in repository.every(connection)]


def revoke(connection: Connection, key_id: str) -> bool:
    """End a key's validity at once; false if there is no such valid key."""
    return repository.revoke(connection, key_id)


def verify(engine: Engine, secret: str) -> str | None:
    """The id of the valid key with this secret, or nothing."""
    # The look-up is by the secret's digest, so its timing tells nothing about a stored secret.
    with reading(engine) as connection:
        row = repository.by_digest(connection, _digest(secret))
    return None if row is None or row.revoked_at is not None else row.id


def bootstrap(engine: Engine, settings: Settings) -> str | None:
    """Make the first key; its secret if one was made now, nothing otherwise.

    The secret is `RANKFOLD_BOOTSTRAP_KEY`, or that of the data folder's `bootstrap.key` (mode 600), which is
    written with a random one when the database knows no key at all. Safe to call at every start; a revoked
    key is not revived.
    """
    file = settings.data_dir / BOOTSTRAP_FILE
    with writing(engine) as connection:
        secret = _configured(settings) or _read(file)
        if secret is None and not repository.any_exists(connection):
            secret = _random()
            _write_private(file, secret)
        if secret is None or repository.by_digest(connection, _digest(secret)) is not None:
            return None
        repository.insert(connection, name="bootstrap", sha256=_digest(secret))
    return secret


def _configured(settings: Settings) -> str | None:
    return settings.bootstrap_key.get_secret_value() or None if settings.bootstrap_key else None


def _read(file: Path) -> str | None:
    return file.read_text().strip() or None if file.exists() else None


def _write_private(file: Path, secret: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as writer:
        os.fchmod(descriptor, 0o600)  # the mode above counts for a new file only
        writer.write(secret + "\n")


def _random() -> str:
    return f"rk_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
