"""Prefect's API, which only this machine's own names reach, and whose SQLite database lets two writers wait.

Prefect begins a transaction as a reader where it reads first. When another one has written in the meantime, SQLite
refuses its write at once, the API answers 503, and the client asks again after 2, 4, ... seconds: so two stages that
began together cost a run seconds. A transaction that begins as a writer waits for the few milliseconds instead.

A page of another origin whose name has come to stand for 127.0.0.1 would be of the server's own origin, to a browser;
so a request that names another host is refused.
"""

import socket
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn
from fastapi import FastAPI
from prefect.server.api.server import create_app as create_prefect_app
from prefect.server.database.configurations import AioSqliteConfiguration
from starlette.middleware.trustedhost import TrustedHostMiddleware

HOSTS = ["127.0.0.1", "localhost"]

begin_transaction = AioSqliteConfiguration.begin_transaction  # Prefect's own way


def begin_as_writer(
    database: AioSqliteConfiguration,
    session: Any,
    with_for_update: bool = False,  # noqa: ARG001  # Prefect names it
) -> AbstractAsyncContextManager[Any]:
    """Stand in for `AioSqliteConfiguration.begin_transaction`."""
    return begin_transaction(database, session, with_for_update=True)


def create_app() -> FastAPI:
    AioSqliteConfiguration.begin_transaction = begin_as_writer  # type: ignore[method-assign,assignment]
    app = create_prefect_app()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    return app


def serve(listener: int) -> None:
    """Serve the API on the listening socket that has the descriptor `listener`, until the process is asked to end."""
    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])
