"""The server's process: it listens, loads the models meanwhile, and ends in order."""

import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from runtime.errors import UserError
from serving.app import make_app
from serving.log import AccessLog, say
from serving.metrics import Metrics
from serving.models import Models
from serving.settings import TOKEN, Settings
from serving.sources import Source

BACKLOG = 2048
# For which a thread that computes may keep the others, such as the one that reads requests, from Python; 0.005 by
# default. Conversions take a fraction of that, so connections would wait longer for each other than for the model.
SWITCH_SECONDS = 0.0005
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server(uvicorn.Server):
    """Uvicorn that ends in order on the first signal, also SIGHUP, and ignores later ones."""

    def __init__(self, config: uvicorn.Config, ending: threading.Event) -> None:
        super().__init__(config)
        self.ending = ending

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
        for number, handler in before.items():
            if handler != signal.SIG_IGN or number != signal.SIGHUP:  # `nohup` ignores SIGHUP
                signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.ending.set()
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises UserError if there is no such address, or the port is in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: there is no such address ({error}).") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(
            f"port {port} of {host} is not to be had ({error.strerror}). End the program that uses it, or name another "
            "one by --port."
        ) from None
    return listener


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches a server on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def usable_token(value: str | None) -> str | None:
    """Return the token; raises UserError for one that no header can have."""
    if value is not None and not (value.isascii() and value.isprintable() and value and " " not in value):
        raise UserError(
            f"{TOKEN} is empty, or has spaces or other than ASCII characters. Set another one, or unset it."
        )
    return value


def refuse_open(host: str, token: str | None, is_open: bool) -> None:
    """Raise UserError if others could ask the server without a token, and the user has not said that they may.

    Args:
        host: on which it listens.
        token: that it asks for.
        is_open: whether the user wants it so.
    """
    if not (is_local(host) or token or is_open):
        raise UserError(
            f"--host {host} lets other machines ask this server. Set a token in {TOKEN}, which they must show, or "
            "answer everybody by --open."
        )


def serve(source: Source, settings: Settings, host: str, port: int) -> None:
    """Serve until a signal comes; raises UserError if the port is in use or a model cannot be loaded.

    Args:
        source: of the models.
        settings: limits and token.
        host: on which it listens.
        port: on which it listens.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    with listen(host, port) as listener:
        metrics, log = Metrics(), AccessLog()
        models = Models(source, metrics)
        app = make_app(models, settings, metrics, log)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(settings.limits.ending_seconds)),
        )
        server = Server(config, models.ending)

        def tell_loaded() -> None:
            shown = f"[{host}]" if ":" in host else host
            names = ", ".join(f"{name} {served.model.version}" for name, served in models.current.items())
            say(f"ready at http://{shown}:{port}/ with {names}")

        def stop() -> None:
            server.should_exit = True

        say(f"listening on port {port}, loading the models ...")
        watch = threading.Thread(target=models.run, args=(tell_loaded, stop), name="models", daemon=True)
        watch.start()
        log.start()
        try:
            server.run(sockets=[listener])
        finally:
            models.ending.set()
            log.stop()
        if models.failure:
            raise models.failure
