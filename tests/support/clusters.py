"""A Dask cluster on this machine."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from orchestration.prefect.server import free_port


@contextmanager
def dask_cluster(settings: dict[str, str], folder: Path) -> Iterator[str]:
    """Yield the address of a Dask scheduler with two workers of one thread each.

    Args:
        settings: the environment of the processes.
        folder: theirs, without this project's code.
    """
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    quiet: dict[str, Any] = {"cwd": folder, "env": settings, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
    processes = [subprocess.Popen([*scheduler, "--no-dashboard"], **quiet)]
    for name in ("one", "two"):
        words = ["--nthreads", "1", "--resources", "threads=1", "--local-directory", str(folder / name)]
        processes.append(subprocess.Popen([*worker, *words], **quiet))
    try:
        with Client(address, timeout=30) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        for process in processes:
            process.terminate()
            process.wait()
