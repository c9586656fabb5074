"""The lock on a workspace: who holds it is named, whoever that is, and a process that was killed does not hold it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.workspace_lock import WORKSPACE_LOCK, exclusive_workspace, shared_workspace
from runtime.errors import UserError
from tests.support.workspaces import ROOT

HOLDER = """
import sys
import psutil
from orchestration import workspace_lock
if sys.argv[1] == "until_exit":
    workspace_lock.share_workspace_until_exit(psutil.Process().parent())
    print("held", flush=True)
    sys.stdin.read()
else:
    with getattr(workspace_lock, sys.argv[1])():
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], subprocess.Popen]]:
    """Start a process that takes the lock of an empty workspace, the current directory, and holds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "holder.py").write_text(HOLDER)
    started = []

    def hold(how: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "holder.py", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def records() -> list[Path]:
    return [*WORKSPACE_LOCK.parent.glob("workspace.lock.*")]


def test_every_process_that_shares_the_lock_is_named(hold):
    holders = [hold("shared_workspace"), hold("shared_workspace")]
    both = r"this workspace is in use by process \d+ \(.*\) and process"
    with pytest.raises(UserError, match=both) as refused, exclusive_workspace():
        pass
    assert all(f"process {holder.pid} (" in str(refused.value) for holder in holders)
    with shared_workspace():
        assert len(records()) == 3
    for holder in holders:
        holder.communicate("")
    assert records() == []
    with exclusive_workspace():
        assert len(records()) == 1


def test_a_process_that_holds_the_lock_alone_refuses_every_other(hold):
    holder = hold("exclusive_workspace")
    for other in (shared_workspace, exclusive_workspace):
        with pytest.raises(UserError, match=rf"in use by process {holder.pid} \(.*exclusive_workspace\)"), other():
            pass


def test_a_process_can_share_the_lock_in_the_name_of_another(hold, monkeypatch):
    holder = hold("until_exit")
    with pytest.raises(UserError, match=rf"in use by process {os.getpid()} \(.*\)\. Wait"), exclusive_workspace():
        pass
    holder.communicate("")
    with exclusive_workspace():
        assert len(records()) == 1


def test_a_process_that_was_killed_is_not_named_and_its_record_goes(hold):
    killed, holder = hold("shared_workspace"), hold("shared_workspace")
    killed.kill()
    killed.wait()
    with pytest.raises(UserError, match=rf"in use by process {holder.pid} \([^)]*\)\. Wait"), exclusive_workspace():
        pass
    holder.kill()
    holder.wait()
    assert len(records()) == 2
    with exclusive_workspace():
        assert len(records()) == 1


def test_a_holder_without_a_record_is_another_process(hold):
    hold("shared_workspace")
    for record in records():
        record.write_text("{")
    with pytest.raises(UserError, match=r"in use by another process\. Wait"), exclusive_workspace():
        pass
