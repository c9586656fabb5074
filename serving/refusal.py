"""A request that is not answered: the status, and the reason in words for whoever has sent it."""

from http import HTTPStatus

RETRY_SECONDS = 1


class Refusal(Exception):
    """Why a request is refused. The message may name inputs and rows; it goes to the client alone, into no log."""

    def __init__(self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def bad(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def later(status: HTTPStatus, message: str) -> Refusal:
    """Return the refusal of a request that may succeed if it is repeated."""
    return Refusal(status, message, {"Retry-After": str(RETRY_SECONDS)})
