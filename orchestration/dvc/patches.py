"""What this project replaces in DVC; `read_plan`, with which every run of the graph begins, calls `patch_dvc`.

tests/unit/test_library_contracts.py fails when DVC changes what a replacement relies on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dvc.stage.run
from dvc.dvcfile import Lockfile
from dvc.utils.serialize import _yaml

from orchestration.dvc.lockfile import dump_stages
from orchestration.dvc.reproduce import run_commands


def patch_dvc() -> None:
    """Replace how DVC runs a command and writes an entry of dvc.lock; a second call changes nothing."""
    dvc.stage.run.cmd_run = run_commands
    Lockfile.dump_stages = dump_stages


@contextmanager
def reading_instead(file: Path, content: str | None) -> Iterator[None]:
    """Make DVC read `content` instead of that of params.yaml, at `file`, in the block; None: read the file."""
    parse = _yaml.parse_yaml

    def parse_instead(text: str, path: str, typ: str = "safe") -> Any:
        ours = content is not None and Path(path).absolute() == file.absolute()
        return parse(content if ours else text, path, typ)

    _yaml.parse_yaml = parse_instead
    try:
        yield
    finally:
        _yaml.parse_yaml = parse
