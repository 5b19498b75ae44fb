"""The one shape of every error (RFC 9457)."""

from typing import Self

from app.contract.base import Contract


class Problem(Contract):
    """A problem document: what went wrong, where, and the way out.

    `code` is stable and machine readable; `detail` is for people; `field` is a path into the request
    body (`target.keep`), `layer` a layer's name in the model.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    layer: str | None = None
    field: str | None = None

    @classmethod
    def of(
        cls,
        code: str,
        detail: str,
        *,
        status: int = 422,
        hint: str | None = None,
        layer: str | None = None,
        field: str | None = None,
    ) -> Self:
        """A problem whose title is its code, read aloud (`unknown_operator` → "Unknown operator")."""
        return cls(
            title=code.replace("_", " ").capitalize(),
            status=status,
            detail=detail,
            code=code,
            hint=hint,
            layer=layer,
            field=field,
        )


class Notice(Contract):
    """Something the user should know that did not stop the job, such as a layer left dense."""

    code: str
    detail: str
    layer: str | None = None
