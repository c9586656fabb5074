"""A section of `params.yaml`: a frozen mapping in which every key is known; and types that sections share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from runtime.errors import unknown_name


def check_repeats(entries: list[Any]) -> list[Any]:
    if len({*entries}) < len(entries):
        raise ValueError("names one twice")
    return entries


# NumPy and scikit-learn take seeds of 32 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Of a list: no entry is there twice.
Different = AfterValidator(check_repeats)


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
