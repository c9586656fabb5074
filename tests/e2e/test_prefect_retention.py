"""The server of `make ui` removes old runs, with their parts, from its database."""

import shutil
import sqlite3
from contextlib import closing

import psutil
from prefect.settings import PREFECT_HOME, temporary_settings

from orchestration.prefect.server import start_server, stop
from tests.support.processes import wait_for
from tests.support.workspaces import MIGRATED, ROOT

FLOW = "00000000-0000-4000-8000-000000000000"
ADDED = """
INSERT INTO flow (id, name) VALUES ('{flow}', 'retrain');
INSERT INTO flow_run (id, name, flow_id, state_type, end_time) VALUES
    ('{flow}', 'old', '{flow}', 'COMPLETED', datetime('now', '-31 days')),
    (replace('{flow}', '4', '5'), 'young', '{flow}', 'COMPLETED', datetime('now', '-29 days')),
    (replace('{flow}', '4', '6'), 'running', '{flow}', 'RUNNING', NULL);
INSERT INTO log (name, level, message, timestamp, flow_run_id)
    SELECT 'prefect', 20, name, '2020-01-01 00:00:00', id FROM flow_run;
"""


def test_runs_that_ended_long_ago_are_removed(environment, tmp_path, monkeypatch):
    database = tmp_path / "prefect.db"
    shutil.copy(MIGRATED[0], database)

    def names(column: str, table: str) -> set[str]:
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            return {name for (name,) in connection.execute(f"SELECT {column} FROM {table}")}

    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(ADDED.format(flow=FLOW))
    monkeypatch.chdir(ROOT)
    with temporary_settings({PREFECT_HOME: tmp_path}):
        supervisor = start_server(psutil.Process(), tmp_path / "server", pages=True)
    try:
        wait_for(lambda: "old" not in names("name", "flow_run") | names("message", "log"), "the end of the old run")
    finally:
        stop(supervisor)
    assert names("name", "flow_run") == names("message", "log") == {"young", "running"}
