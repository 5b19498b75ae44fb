"""Settings, all from the environment; `rankfold settings` lists them."""

from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every field is `RANKFOLD_` + its name in capitals. What is unset falls back to the embedded default."""

    model_config = SettingsConfigDict(env_prefix="RANKFOLD_", frozen=True)

    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8000, description="port the API listens on")
    data_dir: Path = Field(Path("var"), description="folder of the embedded database, broker and blobs")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the data folder")
    broker_url: str = Field("", description="Redis or Valkey URL; empty: the embedded Valkey's socket")
    blob_url: str = Field(
        "", description="file:///… or s3://bucket/prefix; empty: a folder in the data folder"
    )
    bootstrap_key: SecretStr | None = Field(
        None, description="API key made at first start; empty: a random one"
    )
    max_upload_bytes: int = Field(4 << 30, description="largest upload accepted", ge=1)
    threads: int = Field(0, description="threads a job computes with; 0: one per core", ge=0)
    concurrency: int = Field(
        2, description="jobs a worker runs at once: a second one, so that an upload need not wait", ge=1
    )
    lease_seconds: float = Field(30.0, description="a worker silent for so long has lost its job", gt=0)
    max_attempts: int = Field(5, description="attempts before a job whose worker keeps dying is failed", ge=1)
    job_memory_bytes: int = Field(16 << 30, description="address space of a job's process; 0: no limit", ge=0)
    job_seconds: int = Field(6 * 3600, description="wall-clock limit of one attempt", ge=1)
    inspection_seconds: int = Field(1800, description="wall-clock limit of one look at an upload", ge=1)
    job_disk_bytes: int = Field(64 << 30, description="what a job's folder may hold; 0: no limit", ge=0)
    sandbox: Literal["", "require", "auto", "off"] = Field(
        "",
        description="where jobs cannot be confined, a worker does not start (require) or says so (auto); "
        "off: it confines none; empty: auto where the API listens on this machine alone, else require",
    )

    @model_validator(mode="after")
    def _keep_the_sandbox_on(self) -> Self:
        if self.sandbox == "off" and not self.is_local:
            raise ValueError(
                f"RANKFOLD_SANDBOX=off is for debugging on one machine, and RANKFOLD_HOST is {self.host}: "
                "unset one of them"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether the API listens on this machine's own address alone."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def resolved_sandbox(self) -> Literal["require", "auto", "off"]:
        """What to do where jobs cannot be confined."""
        return self.sandbox or ("auto" if self.is_local else "require")

    @property
    def resolved_database_url(self) -> str:
        """The database URL, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'rankfold.db'}"

    @property
    def spool_dir(self) -> Path:
        """Where uploads arrive: on the embedded blob store's file system, so that keeping one is a rename."""
        return self.data_dir.resolve() / "spool"

    @property
    def broker_socket(self) -> Path:
        """The embedded broker's unix socket."""
        return self.data_dir.resolve() / "broker.sock"

    @property
    def resolved_broker_url(self) -> str:
        """The broker URL, or the embedded broker's socket."""
        return self.broker_url or f"redis+socket://{self.broker_socket}"

    @property
    def resolved_blob_url(self) -> str:
        """The blob store's URL, or a folder in the data folder."""
        return self.blob_url or (self.data_dir.resolve() / "blobs").as_uri()


@cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
