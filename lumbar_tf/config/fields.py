"""The types that fields share, and what every configuration forbids."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A frozen group of fields; a misspelt one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
