"""Models and data sets over HTTP, on both databases."""

import hashlib

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.contract.summary import ModelSummary
from app.db.session import reading
from app.db.tables import Job
from app.queue.lifecycle import Ending
from tests.app.conftest import LIMIT
from tests.app.tenants import IMAGES, LABELS, MODEL_SUMMARY, ZIP, Tenant

SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
_FILE = b'Content-Disposition: form-data; name="file"; filename="m.pt2"'
_NOTE = b"--b\r\nContent-Disposition: form-data; name=note\r\n\r\n1\r\n--b--\r\n"
ONNX = b"\x08\x07\x12\x07pytorch"
KINDS = [
    ("models", "m.pt2", ZIP),
    ("models", "m.onnx", ONNX),
    ("models", "m.zip", ZIP),
    ("datasets", "d.npz", ZIP),
    ("datasets", "d.safetensors", SAFETENSORS),
    ("datasets", "d.parquet", b"PAR1"),
    ("datasets", "d.txt", b"Once upon"),
    ("datasets", "d.zip", ZIP),
]


@pytest.mark.parametrize(("noun", "name", "content"), KINDS)
def test_the_bytes_alone_are_accepted(tenant: Tenant, noun: str, name: str, content: bytes) -> None:
    response = tenant.client.post(f"/v1/{noun}", params={"filename": name}, content=content)
    body = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/{noun}/{body['id']}"
    assert response.headers["retry-after"] == "1"
    assert (body["name"], body["bytes"], body["status"]) == (name, len(content), "inspecting")
    assert body["sha256"] == hashlib.sha256(content).hexdigest()
    assert body["format"] == name.rsplit(".", maxsplit=1)[-1]


@pytest.mark.parametrize(("noun", "name", "content"), KINDS)
def test_a_form_is_accepted(tenant: Tenant, noun: str, name: str, content: bytes) -> None:
    form = {"note": (None, b"skipped"), "file": (name, content)}
    response = tenant.client.post(f"/v1/{noun}", files=form)
    assert response.status_code == 202, response.text
    stored = tenant.client.get(f"{response.headers['location']}/content")
    assert stored.content == content


@pytest.mark.parametrize("name", ["../../etc/m.pt2", "C:\\models\\m.pt2", "a/b/m.pt2", "\x00m.pt2\n"])
def test_a_hostile_name_is_only_a_name(tenant: Tenant, name: str) -> None:
    response = tenant.client.post("/v1/models", params={"filename": name}, content=ZIP)
    assert response.status_code == 202
    assert response.json()["name"] == "m.pt2"


def test_a_name_that_headers_cannot_hold_is_quoted(tenant: Tenant) -> None:
    model = tenant.upload(name='ü"\u2028.pt2')
    disposition = tenant.client.get(f"/v1/models/{model}/content").headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''%C3%BC%22.pt2"


@pytest.mark.parametrize(
    ("noun", "name", "content", "accepted"),
    [
        ("models", "m.onnx", ZIP, ".pt2, .onnx or .zip"),
        ("models", "m.zip", ONNX, ".zip"),
        ("models", "m.pt2", b"this is not a zip", ".pt2"),
        ("models", "m.pt2", ONNX, ".pt2"),
        ("models", "m.onnx", b"", ".onnx"),
        ("models", "m.pt2", b"", ".pt2"),
        ("models", "m.npz", ZIP, ".pt2"),
        ("models", "model", ZIP, ".pt2"),
        ("datasets", "d.pt2", ZIP, ".npz, .safetensors, .parquet, .zip or .txt"),
        ("datasets", "d.parquet", b"PAR2", ".npz, .safetensors, .parquet, .zip or .txt"),
        ("datasets", "d.txt", b"a\0", ".npz, .safetensors, .parquet, .zip or .txt"),
        ("datasets", "d.zip", b"PAR1", ".npz, .safetensors, .parquet, .zip or .txt"),
        ("datasets", "d.npz", b"\x80\x04pickled", ".npz, .safetensors, .parquet, .zip or .txt"),
        ("datasets", "d.safetensors", bytes(8) + b"[", ".npz, .safetensors, .parquet, .zip or .txt"),
        ("datasets", "d.safetensors", b"\xff" * 8 + b"{", ".npz, .safetensors, .parquet, .zip or .txt"),
    ],
)
def test_an_unknown_format_is_told_what_is_accepted(
    tenant: Tenant, noun: str, name: str, content: bytes, accepted: str
) -> None:
    response = tenant.client.post(f"/v1/{noun}", params={"filename": name}, content=content)
    problem = response.json()
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == "unsupported_format"
    assert accepted in problem["hint"]
    assert tenant.client.get(f"/v1/{noun}").json()["items"] == []


@pytest.mark.parametrize("form", [False, True])
def test_a_byte_too_many_is_413_and_leaves_nothing(tenant: Tenant, form: bool, app: FastAPI) -> None:
    content = ZIP + bytes(LIMIT + 1 - len(ZIP))
    if form:
        response = tenant.client.post("/v1/models", files={"file": ("m.pt2", content)})
    else:
        chunks = (content[start : start + 1000] for start in range(0, len(content), 1000))
        response = tenant.client.post("/v1/models", params={"filename": "m.pt2"}, content=chunks)
    assert response.status_code == 413
    assert response.json()["code"] == "upload_too_large"
    assert list(app.state.settings.spool_dir.iterdir()) == []
    assert tenant.client.get("/v1/models").json()["items"] == []


def test_the_largest_upload_passes(tenant: Tenant) -> None:
    assert tenant.upload(content=ZIP + bytes(LIMIT - len(ZIP))).startswith("mdl_")


@pytest.mark.parametrize(
    ("body", "boundary", "status", "code"),
    [
        (b"--b\r\nContent-Dispo", "b", 400, "malformed_form"),
        (b"--b\r\n" + _FILE + b"\r\n\r\nPK", "b", 400, "malformed_form"),
        (b"nonsense", "b", 400, "malformed_form"),
        (_NOTE, "b", 422, "one_file_expected"),
        (b"", "b", 400, "malformed_form"),
        (b"", "b" * 300, 400, "malformed_form"),
        (b"", "", 400, "malformed_form"),
    ],
)
def test_a_broken_form_is_a_clear_problem(
    tenant: Tenant, body: bytes, boundary: str, status: int, code: str
) -> None:
    kind = f"multipart/form-data; boundary={boundary}" if boundary else "multipart/form-data"
    response = tenant.client.post("/v1/models", content=body, headers={"content-type": kind})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert tenant.client.get("/v1/models").json()["items"] == []


def test_two_files_at_once_are_refused(tenant: Tenant) -> None:
    form = [("file", ("a.pt2", ZIP)), ("file", ("b.pt2", ZIP))]
    response = tenant.client.post("/v1/models", files=form)
    assert (response.status_code, response.json()["field"]) == (422, "file")
    assert tenant.client.get("/v1/models").json()["items"] == []


@pytest.mark.parametrize("name", ["", "..", "/", "\n"])
def test_a_file_without_a_name_is_refused(tenant: Tenant, name: str) -> None:
    response = tenant.client.post("/v1/models", params={"filename": name}, content=ZIP)
    assert (response.status_code, response.json()["code"]) == (422, "filename_missing")


def test_when_the_row_cannot_be_written_no_bytes_stay(
    tenant: Tenant, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("a secret of the server")

    before = app.state.blobs.list("uploads")
    monkeypatch.setattr("app.queue.lifecycle.enqueue", fail)
    response = tenant.client.post("/v1/models", params={"filename": "m.pt2"}, content=ZIP)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert app.state.blobs.list("uploads") == before
    assert tenant.client.get("/v1/models").json()["items"] == []


def test_a_ready_model_shows_its_layers(tenant: Tenant) -> None:
    body = tenant.client.get(f"/v1/models/{tenant.model()}").json()
    assert body["status"] == "ready"
    found = {name: body.get(name) for name in ModelSummary.model_fields.keys() - {"menus"}}
    assert ModelSummary.model_validate(found) == ModelSummary.model_validate(MODEL_SUMMARY)


def test_an_inspecting_model_shows_no_layers(tenant: Tenant) -> None:
    body = tenant.client.get(f"/v1/models/{tenant.upload()}").json()
    assert body["status"] == "inspecting"
    assert "layers" not in body


def test_a_rejected_model_shows_the_problem(tenant: Tenant) -> None:
    body = tenant.client.get(f"/v1/models/{tenant.rejected_model()}").json()
    assert body["status"] == "rejected"
    assert (body["problem"]["code"], body["problem"]["layer"]) == ("unknown_operator", "evil")


def test_a_ready_data_set_shows_its_arrays(tenant: Tenant) -> None:
    body = tenant.client.get(f"/v1/datasets/{tenant.dataset(IMAGES, LABELS)}").json()
    assert body["rows"] == 40
    assert [array["name"] for array in body["arrays"]] == ["x", "target"]


def test_pages_lead_through_everything_once_newest_first(tenant: Tenant) -> None:
    made = [tenant.upload() for _ in range(5)]
    tenant.upload("datasets", "d.npz")
    seen, cursor = [], None
    for expected in (2, 2, 1):
        parameters = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = tenant.client.get("/v1/models", params=parameters).json()
        assert len(page["items"]) == expected
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == made[::-1]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=W10=", "cursor=WzEsMV0=", "cursor="]
)
def test_a_wrong_page_is_422_and_names_the_parameter(tenant: Tenant, query: str) -> None:
    response = tenant.client.get(f"/v1/models?{query}")
    assert response.status_code == 422
    assert response.json()["field"] == query.split("=", maxsplit=1)[0]


def test_content_has_a_digest_for_an_etag_and_is_not_sent_twice(tenant: Tenant) -> None:
    path = f"/v1/models/{tenant.upload()}/content"
    first = tenant.client.get(path)
    etag = f'"{hashlib.sha256(ZIP).hexdigest()}"'
    assert (first.content, first.headers["etag"]) == (ZIP, etag)
    for known in (etag, f'"other", W/{etag}', "*"):
        again = tenant.client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert tenant.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("span", "part", "described"),
    [
        ("bytes=0-3", ZIP[:4], "bytes 0-3/64"),
        ("bytes=60-", ZIP[60:], "bytes 60-63/64"),
        ("bytes=-2", ZIP[-2:], "bytes 62-63/64"),
        ("bytes=2-999", ZIP[2:], "bytes 2-63/64"),
        ("bytes=-999", ZIP, "bytes 0-63/64"),
    ],
)
def test_a_range_is_a_part(tenant: Tenant, span: str, part: bytes, described: str) -> None:
    path = f"/v1/models/{tenant.upload()}/content"
    response = tenant.client.get(path, headers={"Range": span})
    assert (response.status_code, response.content) == (206, part)
    assert response.headers["content-range"] == described
    assert response.headers["content-length"] == str(len(part))


@pytest.mark.parametrize("span", ["bytes=64-", "bytes=9-3", "bytes=-0"])
def test_a_range_outside_is_416(tenant: Tenant, span: str) -> None:
    response = tenant.client.get(f"/v1/models/{tenant.upload()}/content", headers={"Range": span})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */64"
    assert response.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "headers",
    [{"Range": "bytes=0-1,4-5"}, {"Range": "lines=0-1"}, {"Range": "bytes=0-1", "If-Range": '"old"'}],
)
def test_a_range_that_may_be_ignored_is_the_whole(tenant: Tenant, headers: dict[str, str]) -> None:
    response = tenant.client.get(f"/v1/models/{tenant.upload()}/content", headers=headers)
    assert (response.status_code, response.content) == (200, ZIP)


def test_deleting_takes_row_and_bytes(tenant: Tenant, app: FastAPI) -> None:
    model = tenant.model()
    assert tenant.client.delete(f"/v1/models/{model}").status_code == 204
    assert tenant.client.get(f"/v1/models/{model}").status_code == 404
    assert tenant.client.delete(f"/v1/models/{model}").status_code == 404
    assert f"uploads/{model}" not in app.state.blobs.list("uploads")


def test_what_an_unfinished_job_works_on_cannot_be_deleted(tenant: Tenant) -> None:
    train, test = tenant.dataset(IMAGES, LABELS), tenant.dataset(IMAGES, LABELS)
    job = tenant.job(data={"train": train, "test": test})
    model = tenant.client.get(f"/v1/jobs/{job}").json()["model"]
    paths = [f"/v1/models/{model}", f"/v1/datasets/{train}", f"/v1/datasets/{test}"]
    for path in paths:
        response = tenant.client.delete(path)
        assert (response.status_code, response.json()["code"]) == (409, "upload_in_use")
        assert job in response.json()["detail"]
    tenant.finish(job, Ending.cancelled())
    assert [tenant.client.delete(path).status_code for path in paths] == [204, 204, 204]


def test_what_is_being_inspected_can_be_withdrawn(tenant: Tenant, app: FastAPI) -> None:
    model = tenant.upload()
    with reading(app.state.engine) as connection:
        inspection = connection.scalars(sa.select(Job.id).where(Job.upload_id == model)).one()
    assert tenant.client.delete(f"/v1/models/{model}").status_code == 204
    assert tenant.client.get(f"/v1/models/{model}").status_code == 404
    assert f"uploads/{model}" not in app.state.blobs.list("uploads")
    with reading(app.state.engine) as connection:
        assert connection.scalars(sa.select(Job.id).where(Job.id == inspection)).all() == []


@pytest.mark.parametrize("upload_id", ["mdl_x", "mdl_" + "0" * 32, "dst_" + "0" * 32, "%00", "ü" * 20])
def test_an_id_that_is_none_is_404(tenant: Tenant, upload_id: str) -> None:
    for suffix in ("", "/content"):
        response = tenant.client.get(f"/v1/models/{upload_id}{suffix}")
        assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_a_data_set_is_no_model(tenant: Tenant) -> None:
    dataset = tenant.dataset(IMAGES)
    assert tenant.client.get(f"/v1/models/{dataset}").status_code == 404


def test_bytes_that_went_missing_are_a_problem_not_a_crash(
    tenant: Tenant, app: FastAPI, anybody: TestClient
) -> None:
    model = tenant.model()
    app.state.blobs.delete(f"uploads/{model}")
    response = tenant.client.get(f"/v1/models/{model}/content")
    assert (response.status_code, response.json()["code"]) == (404, "content_missing")
    assert anybody.get("/livez").status_code == 200
