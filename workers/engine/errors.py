"""The engine's one exception. It carries what a user needs: the code, the place, the way out."""


class EngineError(Exception):
    """Something the user can understand and act on.

    `code` is stable (`unknown_operator`), `detail` is a sentence that never contains a path of the server,
    `hint` is the way out, `layer` and `field` say where.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        layer: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.layer = layer
        self.field = field


class Rejected(EngineError):
    """An upload that is not admitted."""
