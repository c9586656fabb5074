"""Fetch the SavedModels of versions, in a process of its own: `python -m serving.fetch MODEL@VERSION ...`."""

import os
import sys

from orchestration import registry
from orchestration.model_files import fetch_saved_model
from runtime.errors import UserError

NICE = 5  # the requests come first, but under full load it must not wait for ever


def main(names: list[str]) -> int:
    os.nice(NICE)
    try:
        for name in names:
            fetch_saved_model(registry.find_version(*registry.split_name(name)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
