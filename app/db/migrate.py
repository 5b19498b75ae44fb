"""Bring a database to the newest schema."""

from alembic import command
from alembic.config import Config


def upgrade(url: str, revision: str = "head") -> None:
    """Apply every missing migration to the database at `url`; safe to call from several processes at once."""
    command.upgrade(_config(url), revision)


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    config.attributes["url"] = url
    return config
