"""`/v1/models`."""

from app.contract.summary import ArrayInfo, FolderInfo, LayerInfo, PairInfo
from app.db.rows import AnyRow
from app.uploads.endpoints import UploadRoutes
from app.uploads.kinds import MODEL
from app.uploads.schemas import UploadItem
from app.uploads.service import item_fields


class Model(UploadItem):
    """A model; from `inputs` on only when it is ready. MACs are for batch 1. Where a job asks for
    `joint_svd`, `pairs` stand for their members among the `layers`. `folder` is for Hugging Face folders."""

    inputs: list[ArrayInfo] | None = None
    outputs: list[ArrayInfo] | None = None
    parameters: int | None = None
    macs: int | None = None
    layers: list[LayerInfo] | None = None
    pairs: list[PairInfo] | None = None
    folder: FolderInfo | None = None


def _show(row: AnyRow) -> Model:
    found = {field: value for field, value in (row.summary or {}).items() if field != "menus"}
    return Model(**item_fields(row), **found)


router = UploadRoutes(MODEL, "/v1/models", Model, _show).router()
