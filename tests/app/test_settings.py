"""Settings that depend on each other."""

# ruff: noqa: S104 -- nobody listens here

import pytest
from pydantic import ValidationError

from app.settings import Settings


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        *(("127.0.0.1", "auto"), ("127.0.0.53", "auto"), ("::1", "auto"), ("localhost", "auto")),
        *(("0.0.0.0", "require"), ("::", "require"), ("10.0.0.7", "require"), ("api.example", "require")),
    ],
)
def test_whoever_can_be_reached_from_elsewhere_requires_the_sandbox(host: str, mode: str) -> None:
    assert Settings(host=host).resolved_sandbox == mode


def test_what_is_asked_for_is_done() -> None:
    assert Settings(host="127.0.0.1", sandbox="require").resolved_sandbox == "require"
    assert Settings(host="0.0.0.0", sandbox="auto").resolved_sandbox == "auto"
    assert Settings(host="127.0.0.1", sandbox="off").resolved_sandbox == "off"


def test_off_is_for_one_machine() -> None:
    with pytest.raises(ValidationError, match="RANKFOLD_SANDBOX=off is for debugging"):
        Settings(host="0.0.0.0", sandbox="off")
