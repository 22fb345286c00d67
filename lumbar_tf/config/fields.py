"""Base class and field types of configurations."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A frozen group of fields that rejects unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
