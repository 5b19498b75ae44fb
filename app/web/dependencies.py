"""What routes depend on; all of it lives in `app.state`, put there by the lifespan.

Asynchronous, because a dependency that is not costs a hop to a thread.
"""

from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from app.blobs import BlobStore
from app.settings import Settings


async def get_engine(request: Request) -> Engine:
    """The database."""
    return cast(Engine, request.app.state.engine)


async def get_blobs(request: Request) -> BlobStore:
    """The blob store."""
    return cast(BlobStore, request.app.state.blobs)


async def get_app_settings(request: Request) -> Settings:
    """The settings that the application was made with."""
    return cast(Settings, request.app.state.settings)


async def get_key_id(request: Request) -> str:
    """The id of the key that the request was authenticated with: the tenant."""
    return cast(str, request.state.key_id)


Database = Annotated[Engine, Depends(get_engine)]
Blobs = Annotated[BlobStore, Depends(get_blobs)]
AppSettings = Annotated[Settings, Depends(get_app_settings)]
KeyId = Annotated[str, Depends(get_key_id)]
