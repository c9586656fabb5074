"""A section of `params.yaml`: a frozen mapping in which every key is known."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from runtime.errors import unknown_name


class Section(BaseModel):
    """A mapping of `params.yaml` in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(str(unknown_name("parameter", str(key), cls.model_fields, "Valid here")))
        return values
