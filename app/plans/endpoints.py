"""`/v1/plans`."""

from typing import Annotated

from fastapi import APIRouter, Body

from app.contract.spec import JobSpec
from app.errors import documented
from app.jobs.examples import BODIES
from app.jobs.service import Jobs
from app.plans.schemas import PlanView
from app.plans.service import plan
from app.web.dependencies import Database, KeyId

router = APIRouter(
    prefix="/v1/plans", tags=["plans"], responses=documented(401, 404, 409, 413, 422, 500, 503)
)


@router.post("", operation_id="create_plan", summary="What a job would do")
def create(
    spec: Annotated[JobSpec, Body(openapi_examples=BODIES)], engine: Database, key_id: KeyId
) -> PlanView:
    """Takes a job's body; runs and stores nothing. Methods and ranks are those that the weights alone speak
    for: a job that has data weighs errors by it, and may decide otherwise or leave more layers dense."""
    return plan(*Jobs(engine, key_id).check(spec))
