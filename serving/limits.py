"""What a request may cost. Each limit is an option of the command line, with its default and its help from here."""

import os
from dataclasses import dataclass, field, fields
from typing import Any

from runtime.errors import UserError


def limit(default: float, told: str) -> Any:
    return field(default=default, metadata={"told": told})


@dataclass(frozen=True)
class Limits:
    """The limits of a server; what is over one is refused and not computed."""

    body_bytes: int = limit(32 * 2**20, "of a request; a longer one is answered 413")
    body_seconds: float = limit(30, "in which a request must arrive, else 408")
    rows: int = limit(10_000, "of a request, else 400")
    computing: int = limit(max(2, len(os.sched_getaffinity(0))), "requests that compute at once")
    waiting: int = limit(64, "further requests that wait for that; others are answered 503")
    seconds: float = limit(10, "to wait and compute, else 504")
    ending_seconds: float = limit(10, "for running requests when the server ends")

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), 0 if each.name == "waiting" else 1
            if value < least:
                raise UserError(f"--{each.name.replace('_', '-')} is {value}, but at least {least} is needed.")
