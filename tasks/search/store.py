"""The study of a search in Optuna's SQLite database, checkpoints/search/M/study.db, which its tools can open.

The records (records.py) are the truth. A database that is missing, damaged, or of another version of Optuna is made
again from them, so that nothing is lost with it. SQLite and not Optuna's journal, whose torn last line makes all of it
unreadable.
"""

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from config.search import Space
from runtime.errors import UserError
from tasks.search.proposals import direction_of
from tasks.search.records import TrialRecord, folder_of
from tasks.search.space import Parameters, distributions

LOCK_SECONDS = 20  # that another program may hold the database
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

logger = logging.getLogger(__name__)


class DamagedError(Exception):
    """The database cannot be used."""


@dataclass(frozen=True)
class Store:
    """An open study. study_id: its number in the database."""

    path: Path
    space: Space
    storage: RDBStorage
    study_id: int


def frozen(record: TrialRecord, space: Space) -> FrozenTrial:
    """Return a record as Optuna has trials."""
    return create_trial(
        state=STATES[record.state],
        value=record.value,
        params=record.parameters,
        distributions=distributions(space),
        intermediate_values=dict(enumerate(record.epochs, start=1)),
        system_attrs=record.notes,
        user_attrs={"seed": record.seed, "seconds": record.seconds}
        | ({"reason": record.reason} if record.reason else {}),
    )


def open_store(model: str, space: Space, objective: str, records: Sequence[TrialRecord]) -> Store:
    """Open the study of a model, with exactly the trials of `records`: one that was running when a search was killed
    has no record, and is trained again.

    Args:
        model: whose hyperparameters are searched.
        space: what is varied.
        objective: what is compared.
        records: of the trials that have ended, by number, from 0 without a gap.

    Raises:
        UserError: another program has locked the database.
    """
    path = folder_of(model) / "study.db"
    if path.exists():
        try:
            check(path)
            store = connect(path, model, space, objective)
            if agrees(store, records):
                return store
            store.storage.delete_study(store.study_id)
        except DamagedError as error:
            kept = path.with_suffix(".damaged.db")
            logger.warning(
                "%s %s. It is made again from the records of %d finished trials; the old file is %s.",
                path, error, len(records), kept,
            )  # fmt: skip
            path.replace(kept)
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    store = connect(path, model, space, objective)
    for record in records:
        store.storage.create_new_trial(store.study_id, frozen(record, space))
    return store


def check(path: Path) -> None:
    """Raise DamagedError if SQLite cannot read the database, and UserError if another program has locked it."""
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            [(found,)] = database.execute("PRAGMA quick_check(1)")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise locked(path) from None
        raise DamagedError(f"is damaged ({error})") from None
    except sqlite3.DatabaseError as error:
        raise DamagedError(f"is damaged ({error})") from None
    if found != "ok":
        raise DamagedError(f"is damaged ({found})")


def locked(path: Path) -> UserError:
    return UserError(
        f"{path} is locked by another program, such as one that looks into it. Close that program and run again: the "
        "search goes on where it was."
    )


def connect(path: Path, model: str, space: Space, objective: str) -> Store:
    """Connect to a database, which is made where there is none; raises DamagedError if Optuna cannot use it."""
    arguments = {"connect_args": {"timeout": LOCK_SECONDS}}
    try:
        storage = RDBStorage(f"sqlite:///{path}", engine_kwargs=arguments)
        study = optuna.create_study(
            storage=storage, study_name=model, direction=direction_of(objective), load_if_exists=True
        )
        return Store(path, space, storage, storage.get_study_id_from_name(study.study_name))
    except RuntimeError as error:  # of a schema that this version does not know
        raise DamagedError(f"is of another version of Optuna ({str(error).partition('.')[0]})") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, KeyError, ValueError) as error:
        raise DamagedError(f"is damaged ({type(error).__name__})") from None


def agrees(store: Store, records: Sequence[TrialRecord]) -> bool:
    """Return whether the study has the trials of `records`, and no others that have ended."""
    try:
        trials = store.storage.get_all_trials(store.study_id, deepcopy=False)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, KeyError, ValueError) as error:
        raise DamagedError(f"is damaged ({type(error).__name__})") from None
    ended = [trial for trial in trials if trial.state.is_finished()]
    return len(trials) == len(ended) == len(records) and all(
        (trial.state, trial.params, trial.value) == (STATES[record.state], record.parameters, record.value)
        for trial, record in zip(trials, records, strict=True)
    )


def add_running(store: Store, parameters: Parameters) -> int:
    """Add a trial that runs, in one transaction, and return its id."""
    running = create_trial(state=TrialState.RUNNING, params=parameters, distributions=distributions(store.space))
    return store.storage.create_new_trial(store.study_id, running)


def tell(store: Store, trial_id: int, record: TrialRecord) -> None:
    """Store how a running trial has ended; raises UserError if another program has locked the database."""
    ended = frozen(record, store.space)
    try:
        for step, value in ended.intermediate_values.items():
            store.storage.set_trial_intermediate_value(trial_id, step, value)
        for name, value in ended.user_attrs.items():
            store.storage.set_trial_user_attr(trial_id, name, value)
        store.storage.set_trial_state_values(trial_id, ended.state, ended.values)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
        raise locked(store.path) from None
