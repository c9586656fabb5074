"""dvc.lock, an entry at a time: what is written is what DVC would have written, to the byte."""

import os

import pytest
from dvc.utils.serialize import dumps_yaml
from dvc.utils.serialize._yaml import parse_yaml_for_update
from hypothesis import given
from hypothesis import strategies as st

from orchestration.dvc.lockfile import LOCK_FILE, entries, locked_stages, merge, put_in_order
from runtime.errors import UserError
from tests.support.lock_files import stages, words
from tests.support.workspaces import ROOT


def by_dvc(text: str, changed: dict) -> str:
    """Return what DVC makes of a lock file: parse all of it, change it, dump all of it."""
    data = parse_yaml_for_update(text, LOCK_FILE) if text else {"schema": "2.0"}
    data["stages"] = data.get("stages", {})
    data["stages"].update(changed)
    return dumps_yaml(data)


@given(st.dictionaries(words, stages, min_size=1, max_size=4), st.dictionaries(words, stages, min_size=1, max_size=4))
def test_entries_are_changed_and_added_as_dvc_does(before, changed):
    text = by_dvc("", before)
    merged = merge(text, changed)
    assert merged is None or merged == by_dvc(text, changed)


def test_the_lock_of_this_project_is_taken_apart_and_put_together_again():
    text = (ROOT / LOCK_FILE).read_text(encoding="utf-8")
    names = parse_yaml_for_update(text, LOCK_FILE)["stages"]
    changed = {
        "train@iris_mlp": {**names["train@iris_mlp"], "cmd": "another"},
        "train@new": {"cmd": "python -m flows.train new", "deps": [{"path": "a b", "md5": "0" * 32}]},
    }
    assert [line.strip(" :") for line in entries(text)] == [*names]
    assert merge(text, changed) == by_dvc(text, changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema: '1.0'\nstages:\n  a:\n    cmd: a\n",
        "schema: '2.0'\nstages:\n  # why\n  a:\n    cmd: a\n",
        "schema: '2.0'\nstages:\n  a:\n    # why\n    cmd: a\n",
        "schema: '2.0'\nstages:\n  a:\n    cmd: a\ndatasets:\n- name: d\n",
        "schema: '2.0'\ndatasets: []\nstages:\n  a:\n    cmd: a\n",
    ],
)
def test_what_is_not_stages_alone_is_left_to_dvc(text):
    assert merge(text, {"b": {"cmd": "b"}}) is None


def test_stages_are_listed_as_one_repro_would_have_written_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from dvc.repo import Repo

    Repo.init(no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text("stages:\n  a: {cmd: a}\n")
    both = {name: {"cmd": name} for name in ("late", "old", "b", "a")}
    (tmp_path / LOCK_FILE).write_text(by_dvc("", both))
    put_in_order(["a", "b", "late", "old"], ["old"])
    assert (tmp_path / LOCK_FILE).read_text() == by_dvc("", {name: {"cmd": name} for name in ("old", "a", "b", "late")})


class Entry:
    """A stage whose entry in dvc.lock is `values`."""

    def __init__(self, values):
        [self.name] = values
        self.values = values


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A DVC repository with a lock file, and what records entries in it as DVC does at a stage's end."""
    from dvc.dvcfile import Lockfile
    from dvc.repo import Repo
    from dvc.stage import serialize

    from orchestration.dvc import lockfile

    monkeypatch.chdir(tmp_path)
    for module in (lockfile, serialize):  # ours, and DVC's own
        monkeypatch.setattr(module, "to_lockfile", lambda stage, **_: stage.values)
    repo = Repo.init(no_scm=True)
    (tmp_path / LOCK_FILE).write_text(by_dvc("", {"a": {"cmd": "a"}}))
    yield lambda values: lockfile.dump_stages(Lockfile(repo, LOCK_FILE), [Entry(values)])
    repo.close()


LABEL = "petals of a length that is twice that of the others in the same box, more or less"


def test_an_entry_that_dvc_cannot_read_back_is_refused_by_name_and_the_lock_stays(lock, tmp_path):
    before = (tmp_path / LOCK_FILE).read_bytes()
    values = {"train@m": {"cmd": "c", "params": {"params.yaml": {"models.m": {"probes": {LABEL: {"x": 1}}}}}}}
    with pytest.raises(
        UserError, match=r"train@m: petals of a length.*dvc\.lock is as it was|dvc\.lock is as it was.*petals"
    ):
        lock(values)
    assert (tmp_path / LOCK_FILE).read_bytes() == before


def test_an_entry_that_comes_back_as_another_is_refused_by_name(lock, tmp_path):
    before = (tmp_path / LOCK_FILE).read_bytes()
    with pytest.raises(UserError, match=r"b: cmd becomes"):
        lock({"b": {"cmd": "one\x85two"}})
    assert (tmp_path / LOCK_FILE).read_bytes() == before


def test_a_lock_with_comments_stays_too_where_an_entry_cannot_be_read_back(lock, tmp_path):
    before = "schema: '2.0'\nstages:\n  # why\n  a:\n    cmd: a\n"
    (tmp_path / LOCK_FILE).write_text(before)
    with pytest.raises(UserError, match=r"b: cmd becomes"):
        lock({"b": {"cmd": "one\x85two"}})
    assert (tmp_path / LOCK_FILE).read_text() == before
    lock({"b": {"cmd": "b"}})
    assert "# why" in (tmp_path / LOCK_FILE).read_text()


@pytest.mark.parametrize("text", ["schema: '2.0'\nstages:\n  a: [", "- 1\n", "stages: 3\n", "\x00"])
def test_a_lock_that_cannot_be_read_is_one_message_with_the_remedy(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / LOCK_FILE).write_text(text)
    with pytest.raises(UserError, match=r"dvc\.lock cannot be read.*git checkout dvc\.lock"):
        locked_stages()


def test_a_fifo_in_the_place_of_the_lock_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / LOCK_FILE)
    with pytest.raises(UserError, match=r"dvc\.lock is a FIFO"):
        locked_stages()
