"""Prefect's API as our servers run it: writers wait for each other, and requests under a foreign name are refused.

Prefect begins a transaction as a reader if it reads first. If somebody else has written by then, SQLite refuses the
write at once, the API answers 503, and the client asks again after 2, 4, ... seconds. Two stages that start together
would so cost a run seconds. A transaction that begins as a writer waits a few milliseconds instead.

A page of another site could have its name resolve to 127.0.0.1; the browser would then take that page and this server
for the same origin. So a request that names another host is refused.
"""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from prefect.server.api.server import create_app as create_prefect_app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from starlette.middleware.trustedhost import TrustedHostMiddleware

# The last is how the server calls itself, for its automations; no page can have that name.
HOSTS = ["127.0.0.1", "localhost", "prefect-in-memory"]


class WritingSqliteConfiguration(AioSqliteConfiguration):
    """Prefect's SQLite database, with transactions that begin as writers."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def create_app() -> FastAPI:
    """Return the API; without the UI, as in a private server, it also runs no scheduler."""
    address = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(address).name == "sqlite":
        set_database_config(WritingSqliteConfiguration(connection_url=address))
    app = create_prefect_app(ephemeral=not get_current_settings().server.ui.enabled, final=True)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    return app


def serve(listener: int) -> None:
    """Serve the API on the listening socket that has the descriptor `listener`, until the process is asked to end."""
    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])
