"""How a server is set up."""

from dataclasses import dataclass, field

from serving.limits import Limits
from tasks.publishing.usage import PORT

__all__ = ["HOST", "PORT", "TOKEN", "Settings"]

HOST = "127.0.0.1"
TOKEN = "HEAVISIDE_SERVE_TOKEN"


@dataclass(frozen=True)
class Settings:
    """limits: of each request. token: that a request must show; None: none. local: whether only this machine reaches
    the server, so that a foreign name in the header Host is an attack. access_log: whether each request has a line."""

    limits: Limits = field(default_factory=Limits)
    token: str | None = field(default=None, repr=False)
    local: bool = True
    access_log: bool = True
