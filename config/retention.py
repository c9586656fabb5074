"""The section `retention` of `params.yaml`: how much of what every night adds is kept.

No stage of dvc.yaml depends on this section. Versions of models, batches and rejected batches are always kept.
"""

from typing import Annotated

from pydantic import Field

from config.gates import Size
from config.section import Section

MAX_DAYS = 36_500
MAX_EXPERIMENTS = 1_000_000

Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]


class Retention(Section):
    """How much is kept.

    runs_days: how long the server of `make ui` keeps runs that have ended, with their tasks, logs and artifacts.
    events_days: likewise its events, of which there are far more.
    log_size: of .prefect/server.log and worker.log; a larger one becomes server.log.1 or worker.log.1.
    experiments: of DVC, the latest ones.
    cache_days: how long `retrain` leaves a file in DVC's cache that nothing needs; None: it removes none.
    """

    runs_days: Days = 30
    events_days: Days = 7
    log_size: Size = 10 * 10**6
    experiments: Annotated[int, Field(ge=0, le=MAX_EXPERIMENTS)] = 100
    cache_days: Days | None = 7
