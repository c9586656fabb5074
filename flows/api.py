"""Prefect's API, whose SQLite database lets two writers wait for one another.

Prefect begins a transaction as a reader where it reads first. When another one has written in the meantime, SQLite
refuses its write at once, the API answers 503, and the client asks again after 2, 4, ... seconds: so two stages that
began together cost a run seconds. A transaction that begins as a writer waits for the few milliseconds instead.
"""

from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from prefect.server.api.server import create_app as create_prefect_app
from prefect.server.database.configurations import AioSqliteConfiguration

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
    return create_prefect_app()
