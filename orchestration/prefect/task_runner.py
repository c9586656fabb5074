"""The task runner of flows whose tasks the scheduler starts."""

from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

MAX_JOBS = 256
# So many threads that the scheduler alone decides which stages wait.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=MAX_JOBS)
