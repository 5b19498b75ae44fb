"""The console command. Everything heavy is imported by the command that needs it."""

# ruff: noqa: PLC0415 -- `rankfold --help` stays quick

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app.client.command import compress, plan

if TYPE_CHECKING:
    from sqlalchemy import Engine

cli = typer.Typer(no_args_is_help=True, add_completion=False, help="Model compression as an API.")
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
cli.add_typer(keys, name="keys")
cli.command()(compress)
cli.command()(plan)


def main() -> None:
    """The entry point."""
    cli()


@cli.command()
def serve() -> None:
    """Run the whole service here: database, broker, API and one worker. Ctrl-C stops it."""
    from app.serving import serve as serve_here
    from app.supervisor import CannotStart

    try:
        serve_here()
    except CannotStart as reason:
        typer.echo(f"rankfold: {reason}", err=True)
        raise typer.Exit(1) from None


@cli.command()
def api() -> None:
    """Run the API alone."""
    import uvicorn

    from app.settings import get_settings

    settings = get_settings()
    uvicorn.run("app.main:app", host=settings.host, port=settings.port, access_log=False)


@cli.command()
def worker(
    queues: Annotated[
        str, typer.Option(help="comma-separated: cpu, or gpu,cpu where there is a GPU")
    ] = "cpu",
) -> None:
    """Run a worker alone; SIGTERM hands its jobs back at their next checkpoint."""
    from app.serving import worker_command

    command = worker_command(queues)
    os.execv(command[0], command)  # noqa: S606


@cli.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    from app.db.migrate import upgrade
    from app.settings import get_settings

    settings = get_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.resolved_database_url)


@cli.command()
def settings() -> None:
    """List every setting with its default and its value now."""
    from rich.console import Console

    from app.serving import settings_table

    Console(width=None if sys.stdout.isatty() else 200).print(settings_table())


@keys.command("create")
def create_key(name: Annotated[str, typer.Argument(help="what the key is for")]) -> None:
    """Make a key and print it: it cannot be shown again."""
    from app.db.session import writing
    from app.keys import service

    with writing(_engine()) as connection:
        key_id, secret = service.create(connection, name)
    typer.echo(f"{key_id} {secret}")


@keys.command("list")
def list_keys() -> None:
    """List the keys without their secrets."""
    from datetime import UTC, datetime

    from app.db.session import reading
    from app.keys import service

    with reading(_engine()) as connection:
        for key in service.listed(connection):
            made = datetime.fromtimestamp(key.created_at, UTC).isoformat(timespec="seconds")
            typer.echo(f"{key.id} {made} {'revoked' if key.revoked_at else 'valid':7} {key.name}")


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="as `rankfold keys list` shows it")]) -> None:
    """End a key's validity at once."""
    from app.db.session import writing
    from app.keys import service

    with writing(_engine()) as connection:
        if not service.revoke(connection, key_id):
            typer.echo(f"rankfold: no valid key has the id {key_id}", err=True)
            raise typer.Exit(1)


def _engine() -> "Engine":
    from app.db.session import make_engine
    from app.settings import get_settings

    return make_engine(get_settings().resolved_database_url)


if __name__ == "__main__":
    main()
