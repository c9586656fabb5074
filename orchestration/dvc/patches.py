"""What this project replaces in DVC; `read_plan`, with which every run of the graph begins, calls `patch_dvc`.

tests/unit/test_library_contracts.py fails when DVC changes what a replacement relies on.
"""

import dvc.stage.run
import dvc.utils.serialize._yaml
import dvc.utils.strictyaml
from dvc.dvcfile import Lockfile

from orchestration.dvc.lockfile import dump_stages
from orchestration.dvc.reproduce import run_commands
from orchestration.dvc.yaml_cache import parse_yaml


def patch_dvc() -> None:
    """Replace how DVC runs a command, writes an entry of dvc.lock, and parses YAML; a second call changes nothing."""
    dvc.stage.run.cmd_run = run_commands
    Lockfile.dump_stages = dump_stages
    dvc.utils.serialize._yaml.parse_yaml = parse_yaml
    dvc.utils.strictyaml.parse_yaml = parse_yaml
