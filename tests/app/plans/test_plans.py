"""Plans over HTTP, of a model as a worker inspects it."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from app.db.tables import Document
from app.plans.schemas import PlanView
from tests.app.tenants import IMAGES, LABELS, Tenant
from tests.workers.engine.networks import Convolutional, image_network, seeded
from workers.engine.formats import pt2
from workers.stages import inspect

UNKNOWN = "mdl_" + "0" * 32


def _inspected(folder: Path, module: nn.Module, channels: int = 3) -> Document:
    path = folder / "model.pt2"
    pt2.write(image_network(module, channels=channels, size=16), path)
    found: Document = inspect.model(path).model_dump(mode="json")
    return found


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """Of a small convolutional network."""
    seeded()
    return _inspected(tmp_path_factory.mktemp("model"), Convolutional(width=48))


def _ask(tenant: Tenant, model: str, **body: Any) -> tuple[int, Any]:
    response = tenant.client.post("/v1/plans", json={"model": model} | body)
    return response.status_code, response.json()


def _refused(tenant: Tenant, model: str, **body: Any) -> tuple[str, str]:
    status, problem = _ask(tenant, model, **body)
    assert status == 422
    assert problem["detail"].endswith(".")
    assert problem["hint"]
    return problem["code"], problem["field"]


def test_a_plan_says_what_becomes_of_every_layer_and_leaves_nothing_behind(
    tenant: Tenant, summary: Document
) -> None:
    model = tenant.model(summary)
    status, body = _ask(tenant, model)
    plan = PlanView.model_validate(body)
    assert (status, plan.model, plan.keep, plan.others, plan.predicted_ms) == (200, model, 0.5, [], None)
    assert [layer.name for layer in plan.layers] == [layer["name"] for layer in summary["layers"]]
    assert 0.49 * summary["macs"] <= plan.macs <= 0.5 * summary["macs"]
    saved = sum(layer.macs[0] - layer.macs[1] for layer in plan.layers)
    assert plan.macs == summary["macs"] - saved
    assert all(layer.reason for layer in plan.layers if layer.rank is None)
    assert all(0.0 < layer.discarded_energy < 1.0 for layer in plan.layers if layer.rank)
    assert tenant.client.get("/v1/jobs").json()["items"] == []


def test_every_keep_has_a_plan_of_its_own(tenant: Tenant, summary: Document) -> None:
    target = {"of": "parameters", "keep": [0.8, 0.5, 0.3]}
    _, body = _ask(tenant, tenant.model(summary), target=target)
    plan = PlanView.model_validate(body)
    parameters = [each.parameters for each in (plan, *plan.others)]
    assert [each.keep for each in (plan, *plan.others)] == [0.8, 0.5, 0.3]
    assert parameters == sorted(parameters, reverse=True)


def test_rules_are_obeyed_at_any_rank(tenant: Tenant, summary: Document) -> None:
    layers = [
        {"match": "block.0", "method": "tucker", "rank": [17, 23]},
        {"match": "stem.*", "method": "keep"},
    ]
    _, body = _ask(tenant, tenant.model(summary), layers=layers, ranks={"selection": "explicit"})
    found = {layer.name: layer for layer in PlanView.model_validate(body).layers}
    assert (found["block.0"].rank, found["stem.0"].rank) == ([17, 23], None)
    assert found["block.0"].parameters == (48 * 48 * 9, 48 * 17 + 17 * 23 * 9 + 23 * 48)


def test_a_budget_out_of_reach_says_the_least_that_is(tenant: Tenant, summary: Document) -> None:
    model = tenant.model(summary)
    status, problem = _ask(tenant, model, target={"keep": 0.001})
    assert (status, problem["code"], problem["field"]) == (422, "budget_unreachable", "target.keep")
    least = float(problem["detail"].split()[-1].rstrip("%.")) / 100
    status, _ = _ask(tenant, model, target={"keep": least + 0.0001})
    assert status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ranks": {"selection": "vbmf"}}, "ranks.selection"),
        ({"target": {"of": "latency"}}, "target.of"),
        ({"methods": ["svd", "cp"]}, "methods.1"),
        ({"layers": [{"match": "block.*", "method": "cp"}]}, "layers.0.method"),
    ],
)
def test_what_only_a_job_finds_out_is_refused_by_name(
    tenant: Tenant, summary: Document, body: dict[str, Any], field: str
) -> None:
    assert _refused(tenant, tenant.model(summary), **body) == ("not_plannable", field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ranks": {"selection": "cross_validation"}}, "ranks.selection"),
        ({"target": {"max_drop": 0.01}}, "target.max_drop"),
    ],
)
def test_what_is_measured_on_data_is_refused_even_with_data(
    tenant: Tenant, summary: Document, body: dict[str, Any], field: str
) -> None:
    images = IMAGES | {"shape": [40, 3, 16, 16]}
    labels = LABELS | {"maximum": 3}
    data = {"train": tenant.dataset(images, labels)}
    assert _refused(tenant, tenant.model(summary), data=data, **body) == ("not_plannable", field)


def test_the_problems_of_a_job_are_those_of_its_plan(tenant: Tenant, summary: Document) -> None:
    model = tenant.model(summary)
    bodies: list[dict[str, Any]] = [
        {"model": UNKNOWN},
        {"model": tenant.upload()},
        {"model": tenant.rejected_model()},
        {"model": model, "layers": [{"match": "nothing", "method": "svd"}]},
        {"model": model, "target": {"keep": 2}},
        {"model": model, "task": "classification"},
        {"model": model, "data": {"test": "dst_" + "0" * 32}},
    ]
    for body in bodies:
        plan, job = (tenant.client.post(f"/v1/{noun}", json=body) for noun in ("plans", "jobs"))
        assert plan.status_code >= 400
        assert (plan.status_code, plan.json()) == (job.status_code, job.json())


def test_a_strangers_model_is_not_there(tenant: Tenant, stranger: Tenant, summary: Document) -> None:
    assert _ask(stranger, tenant.model(summary))[0] == 404


def test_a_model_that_was_inspected_without_menus_is_409(tenant: Tenant, summary: Document) -> None:
    old = {field: value for field, value in summary.items() if field != "menus"}
    status, problem = _ask(tenant, tenant.model(old))
    assert (status, problem["code"], problem["field"]) == (409, "model_without_menus", "model")


def test_menus_are_not_shown_with_the_model(tenant: Tenant, summary: Document) -> None:
    response = tenant.client.get(f"/v1/models/{tenant.model(summary)}")
    assert response.status_code == 200
    assert "menus" not in response.json()
    assert response.json()["layers"]
