"""What both protocols share: an answer, and the words for a request of another form."""

from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from runtime.errors import shortened


class Answer(NamedTuple):
    """The body of an answer. rows: that were computed. headers: besides those of every answer."""

    body: bytes
    media_type: str
    rows: int
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


class Error(BaseModel):
    """Every error has this form."""

    error: str


def first_fault(error: ValidationError) -> str:
    """Return where a request is not of the protocol's form, and why; without the values."""
    fault = error.errors(include_input=False, include_url=False)[0]
    place = shortened(".".join(map(str, fault["loc"])))
    return f"{place or 'the body'}: {fault['msg'][0].lower()}{fault['msg'][1:]}."
