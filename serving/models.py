"""The models in memory: loaded, warm, and replaced when there is another champion.

`Models.current` is a dictionary that is replaced as a whole and never changed. A request takes its model from there
once, so it has one model from its beginning to its end, whatever is promoted meanwhile.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from runtime.disk import explain
from runtime.errors import UserError, shortened
from serving.log import say
from serving.metrics import Metrics
from serving.sources import Source
from serving.tensors import check_types
from tasks.prediction.saved_model import LoadedModel, load_model
from tasks.publishing.export_record import FILE, ExportRecord

POLL_SECONDS = 1.0
LOOK_SECONDS = 30.0  # in which the registry is read even if nothing seems to have changed
RETRY_SECONDS = (1.0, 60.0)  # after a load that failed: the first wait, which doubles, and the longest one
WARM_ROWS = (1, 32)
MAX_REASON = 500  # characters


class Served(NamedTuple):
    """A model that answers. examples: a value of each input that is a number, for the page."""

    model: LoadedModel
    examples: dict[str, float]


class Failure(NamedTuple):
    """A version that could not be loaded. again: when to try again, and wait: the seconds until then."""

    version: str
    again: float
    wait: float


class Models:
    """The served models, and the thread that loads them.

    current: by name. expected: the names that are to be loaded before the server is ready. failure: why nothing can be
    served. ending: the server is about to end.
    """

    def __init__(self, source: Source, metrics: Metrics) -> None:
        self.source = source
        self.metrics = metrics
        self.current: Mapping[str, Served] = {}
        self.expected: frozenset[str] = frozenset()
        self.failure: Exception | None = None
        self.loaded = False
        self.ending = threading.Event()
        self.failures: dict[str, Failure] = {}
        self.complaint = ""

    @property
    def ready(self) -> bool:
        return self.loaded and not self.ending.is_set()

    def run(self, when_loaded: Callable[[], None], when_failed: Callable[[], None]) -> None:
        """Load all models, then watch the source until the server ends; for a thread.

        Args:
            when_loaded: called once all are warm.
            when_failed: called if that is impossible, with `failure` set.
        """
        try:
            self.load_all()
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error
            when_failed()
            return
        when_loaded()
        seen, looked = self.source.stamp(), time.monotonic()
        while not self.ending.wait(POLL_SECONDS):
            now = self.source.stamp()  # before it reads the tags, so that a tag of meanwhile is seen next time
            due = any(failed.again <= time.monotonic() for failed in self.failures.values())
            if now != seen or due or time.monotonic() - looked > LOOK_SECONDS:
                seen, looked = now, time.monotonic()
                if not self.look():
                    seen = None

    def load_all(self) -> None:
        """Load what is wanted now; raises UserError if one cannot be loaded."""
        wanted = self.source.wanted()
        self.expected = frozenset(wanted)
        folders = self.source.fetch(wanted)
        made = {}
        for name, version in wanted.items():
            made[name] = warmed(folders[name], name, version)
            self.tell_version(made[name].model)
            self.current = dict(made)
        self.loaded = True

    def look(self) -> bool:
        """Replace what has another version by now; return False if the source could not be read."""
        try:
            wanted = self.source.wanted()
        except Exception as error:  # noqa: BLE001 - whatever it is, the present models go on
            self.metrics.failed_looks.inc()
            self.complain(f"the champions cannot be read, so the present ones stay: {reason(error)}")
            return False
        self.complaint = ""
        for name, version in wanted.items():
            served = self.current.get(name)
            if served and served.model.version == version:
                self.failures.pop(name, None)
            elif self.may_try(name, version):
                self.replace(name, version)
        return True

    def may_try(self, name: str, version: str) -> bool:
        failed = self.failures.get(name)
        return not failed or failed.version != version or failed.again <= time.monotonic()

    def replace(self, name: str, version: str) -> None:
        """Load a version beside the present one, warm it, and put it into its place."""
        began = time.monotonic()
        try:
            made = warmed(self.source.fetch({name: version})[name], name, version)
        except Exception as error:  # noqa: BLE001 - a damaged champion must not end the server
            self.metrics.failed_loads.labels(name).inc()
            before = self.failures.get(name)
            wait = min(2 * before.wait, RETRY_SECONDS[1]) if before and before.version == version else RETRY_SECONDS[0]
            self.failures[name] = Failure(version, time.monotonic() + wait, wait)
            kept = f"; {self.current[name].model.version} stays" if name in self.current else ""
            self.complain(f"{name} {version} cannot be served{kept}: {reason(error)}")
            return
        before_it = self.current.get(name)
        self.current = {**self.current, name: made}
        self.failures.pop(name, None)
        if before_it:
            self.metrics.version.remove(name, before_it.model.version, before_it.model.sha256)
            self.metrics.swaps.labels(name).inc()
        self.tell_version(made.model)
        instead = f" instead of {before_it.model.version}" if before_it else ""
        say(f"{name} {version} is served{instead}, after {time.monotonic() - began:.1f} s")

    def tell_version(self, model: LoadedModel) -> None:
        self.metrics.version.labels(model.name, model.version, model.sha256).set(1)

    def complain(self, text: str) -> None:
        """Say it, but not again every second."""
        if text != self.complaint:
            say(text)
        self.complaint = text


def reason(error: Exception) -> str:
    told = str(error) if isinstance(error, UserError) else explain(error) or f"{type(error).__name__}: {error}"
    return shortened(" ".join(told.split()), MAX_REASON)


def warmed(folder: Path, name: str, version: str) -> Served:
    """Return a model that has answered already.

    Args:
        folder: the SavedModel.
        name: of the model.
        version: of the model.

    Raises:
        UserError: it cannot be loaded, has types that are not served, or does not answer.
    """
    model = load_model(folder, name, version)
    check_types(model)
    for rows in WARM_ROWS:
        try:
            answers = model.answer(model.zeros(rows))
        except Exception as error:  # noqa: BLE001 - a wrong graph can raise anything
            told = shortened(" ".join(str(error).split()), MAX_REASON)
            raise UserError(f"{folder} does not answer: {told or type(error).__name__}") from None
        for output, values in answers.items():
            if values.shape != (rows, *model.outputs[output].shape):
                shape = [*values.shape]
                raise UserError(f"{folder}: the output {output!r} has the shape {shape} for {rows} rows.")
    return Served(model, examples(folder))


def examples(saved_model: Path) -> dict[str, float]:
    """Return an example of each number from the record of the export, as far as there is one."""
    try:
        record = ExportRecord.model_validate_json((saved_model.parent / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {column.name: column.example for column in record.inputs if column.example is not None}
