"""dvc.lock, an entry at a time: what is written is what DVC would have written, to the byte."""

import pytest
from conftest import ROOT
from dvc.utils.serialize import dumps_yaml
from dvc.utils.serialize._yaml import parse_yaml_for_update
from hypothesis import given
from hypothesis import strategies as st

from stages.lockfile import LOCK_FILE, entries, merge, put_in_order

words = st.text(st.sampled_from("abz019@-_./ :'#,{}\u00e4"), min_size=1, max_size=90).map(str.strip).filter(bool)
files = st.lists(st.fixed_dictionaries({"path": words, "hash": st.just("md5"), "md5": words, "size": st.integers(0)}))
stages = st.fixed_dictionaries(
    {"cmd": words}, optional={"deps": files, "params": st.dictionaries(words, st.dictionaries(words, words))}
)


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
