"""The store of a search: whatever happens to the database, the finished trials survive."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from runtime.errors import UserError
from tasks.search import store as stores
from tasks.search.proposals import propose
from tasks.search.records import State, TrialRecord, folder_of, open_records, read_record, record_file, write_whole
from tasks.search.store import Store, add_running, open_store, tell
from tests.support.searches import record, small_search, small_space

SPACE = small_space()
DRAWN = propose(small_search(sampler="random"), SPACE, "loss", [], range(5))
KNOWN = [record(n, drawn, None if n == 2 else 0.1 * n, (0.5, 0.1 * n)) for n, drawn in enumerate(DRAWN)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "LOCK_SECONDS", 0.1)
    open_records("iris_mlp", {"a": 1})
    return folder_of("iris_mlp")


def trials_of(store: Store) -> list[tuple]:
    trials = store.storage.get_all_trials(store.study_id)
    return [(trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values) for trial in trials]


def expected(known: list[TrialRecord]) -> list[tuple]:
    states = {"complete": "COMPLETE", "failed": "FAIL", "pruned": "PRUNED"}
    return [(r.number, states[r.state], r.parameters, r.value, dict(enumerate(r.epochs, 1))) for r in known]


def opened(known=KNOWN) -> Store:
    return open_store("iris_mlp", SPACE, "loss", known)


def test_trials_that_were_told_are_those_of_a_store_that_is_made_of_the_records(folder):
    told = opened([])
    for known in KNOWN:
        tell(told, add_running(told, known.parameters), known)
    assert trials_of(told) == expected(KNOWN)
    before = (folder / "study.db").stat().st_ino
    assert trials_of(opened()) == expected(KNOWN)
    assert (folder / "study.db").stat().st_ino == before  # what looks into it still sees it


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1), st.booleans())
def test_finished_trials_survive_a_database_that_was_cut_anywhere_or_overwritten(folder, share, cut):
    path = folder / "study.db"
    opened()
    content = path.read_bytes()
    at = int(share * (len(content) - 1))
    path.write_bytes(content[:at] if cut else content[:at] + b"\xff" * 512 + content[at + 512 :])
    assert trials_of(opened()) == expected(KNOWN)


def test_a_damaged_database_is_told_in_one_message_and_kept(folder, caplog):
    opened()
    path = folder / "study.db"
    path.write_bytes(path.read_bytes()[:-2000])
    assert trials_of(opened()) == expected(KNOWN)
    [message] = [line.getMessage() for line in caplog.records if line.name == "tasks.search.store"]
    assert "study.db is damaged" in message
    assert "made again from the records of 5 finished trials" in message
    assert (folder / "study.damaged.db").exists()


def test_a_database_of_another_version_is_made_again(folder, caplog):
    opened()
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        database.commit()
    assert trials_of(opened()) == expected(KNOWN)
    assert "of another version of Optuna" in caplog.text


def test_a_locked_database_is_one_message_that_says_how_to_go_on(folder):
    opened()
    with closing(sqlite3.connect(folder / "study.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            UserError, match=r"study\.db is locked by another program.* Close that program and run again"
        ):
            opened()
    assert trials_of(opened()) == expected(KNOWN)


def test_a_trial_that_was_running_at_a_kill_is_not_left_running(folder):
    store = opened(KNOWN[:3])
    add_running(store, KNOWN[3].parameters)
    store = opened(KNOWN[:3])
    assert TrialState.RUNNING not in [trial.state for trial in store.storage.get_all_trials(store.study_id)]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"number": 3}'])
def test_a_torn_record_is_told_and_its_trial_is_trained_again(folder, content, caplog):
    file = record_file("iris_mlp", "trial-0003")
    write_whole(file, KNOWN[3])
    assert read_record("iris_mlp", "trial-0003", TrialRecord) == KNOWN[3]
    file.write_text(content)
    assert read_record("iris_mlp", "trial-0003", TrialRecord) is None
    assert "It is trained again." in caplog.text


def test_records_of_another_search_are_moved_away_and_those_of_the_same_one_stay(folder):
    write_whole(record_file("iris_mlp", "trial-0003"), KNOWN[3])
    write_whole(folder / "state.json", State(made_with={"a": 1}, seconds=12.0))
    assert open_records("iris_mlp", {"a": 1}).seconds == 12
    assert open_records("iris_mlp", {"a": 2}).seconds == 0
    assert read_record("iris_mlp", "trial-0003", TrialRecord) is None
    assert (folder.with_name("iris_mlp.before") / "records/trial-0003.json").exists()
    shutil.rmtree(folder)
    assert open_records("iris_mlp", {"a": 2}).seconds == 0
