"""What every section of params.yaml is made of: Model and types of values."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[tuple[Count, Count], Field(description="height, width in pixels")]


class Model(BaseModel):
    """A section of params.yaml: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
