"""A part of what is kept as JSON: checked as it is read, unchanged once it is there."""

from pydantic import BaseModel, ConfigDict


class Facts(BaseModel):
    """Reading and writing again changes no byte: what a later release adds is kept as well."""

    model_config = ConfigDict(frozen=True, extra="allow")
