"""`/v1/datasets`."""

from app.contract.summary import ArrayInfo
from app.db.rows import AnyRow
from app.uploads.endpoints import UploadRoutes
from app.uploads.kinds import DATASET
from app.uploads.schemas import UploadItem
from app.uploads.service import item_fields


class Dataset(UploadItem):
    """A data set; `rows` and `arrays` only when it is ready."""

    rows: int | None = None
    arrays: list[ArrayInfo] | None = None


def _show(row: AnyRow) -> Dataset:
    return Dataset(**item_fields(row), **(row.summary or {}))


router = UploadRoutes(DATASET, "/v1/datasets", Dataset, _show).router()
