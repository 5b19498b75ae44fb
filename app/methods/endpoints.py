"""`/v1/methods`: what can be asked for, from the contract itself."""

from fastapi import APIRouter

from app.errors import documented
from app.methods.catalogue import CATALOGUE, Methods

router = APIRouter(prefix="/v1/methods", tags=["methods"], responses=documented(401, 500, 503))


@router.get("", operation_id="list_methods", summary="What can be asked for")
def methods() -> Methods:
    """With the JSON schemas of ranks, rank selections, target, calibration and fine-tuning."""
    return CATALOGUE
