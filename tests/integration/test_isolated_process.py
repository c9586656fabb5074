"""A program in a process without our code: a new one, or one that was forked before."""

import subprocess
import sys

import pytest

from tests.support.workspaces import ROOT

PROGRAM = """
import sys
loaded = sorted({"config", "datasets", "flows", "models", "tasks"} & set(sys.modules))
try:
    import tasks
    loaded.append("tasks, importable")
except ImportError:
    pass
print(__name__, sys.argv[1:], loaded, "colorsys" in sys.modules, file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
ASK = """
import sys, tempfile
from pathlib import Path
from runtime.isolated_process import fork_spare, run_isolated
import colorsys
if sys.argv[1] == "forked":
    fork_spare()
with tempfile.TemporaryDirectory() as folder:
    for code in ("3", "0"):
        print(run_isolated(sys.argv[2], [code, "a b"], Path(folder)))
"""


@pytest.mark.parametrize(("way", "has_imports"), [("new", False), ("forked", True)])
def test_a_program_sees_none_of_our_code_and_its_exit_code_and_errors_come_back(way, has_imports):
    command = [sys.executable, "-c", ASK, way, PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    first = (3, f"__main__ ['3', 'a b'] [] {has_imports}\n")
    second = (0, "__main__ ['0', 'a b'] [] False\n")  # there was one spare process
    assert done.stdout.splitlines() == [str(first), str(second)], done.stderr
