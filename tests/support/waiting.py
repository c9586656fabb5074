"""A stage that waits, `ingest@line`: for tests of what happens while a stage runs, it costs no processor time."""

from pathlib import Path

from tests.support.processes import wait_for
from tests.support.workspaces import commit

# The stage waits as long as the first file is there, and makes the second one when it begins to.
HELD, WAITING = Path(".dvc/tmp/held"), Path(".dvc/tmp/waiting")
CODE = f"""

import dataclasses  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402


def wait_and_generate() -> pa.Table:
    if Path("{HELD}").exists():
        print("waiting", flush=True)
        Path("{WAITING}").touch()
    while Path("{HELD}").exists():
        time.sleep(0.1)
    return generate()


DATASET = dataclasses.replace(DATASET, fetch=wait_and_generate, generate=wait_and_generate)
"""


def make_it_wait(workspace: Path, environment: dict[str, str] | None = None) -> None:
    """Let `ingest@line` of a workspace wait while it is held.

    Args:
        workspace: with a DVC repository.
        environment: of git, which commits the change; None: without git.
    """
    code = workspace / "datasets/line.py"
    code.write_text(code.read_text() + CODE)
    if environment:
        commit(workspace, environment)


def hold(workspace: Path) -> None:
    """Have the next `ingest@line` wait."""
    (workspace / HELD).parent.mkdir(parents=True, exist_ok=True)
    (workspace / HELD).touch()
    (workspace / WAITING).unlink(missing_ok=True)


def release(workspace: Path) -> None:
    (workspace / HELD).unlink(missing_ok=True)


def wait_until_it_waits(workspace: Path, told: object = "the stage that waits") -> None:
    """Return when `ingest@line` waits; told: as for `wait_for`."""
    wait_for((workspace / WAITING).exists, told)
