"""The base of every model in the contract."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """Immutable, and strict about unknown fields: a misspelt option is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
