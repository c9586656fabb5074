"""DVC's YAML, parsed once for each text: what it gets is what it would have got."""

import pytest
from dvc.utils.serialize import dumps_yaml
from dvc.utils.serialize._yaml import YAMLFileCorruptedError
from hypothesis import given
from hypothesis import strategies as st

from orchestration.dvc.yaml_cache import parse_anew, parse_yaml
from tests.support.lock_files import stages, words
from tests.support.workspaces import ROOT


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "params.yaml"])
def test_the_files_of_this_project_are_read_as_dvc_reads_them(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert parse_yaml(text, name) == parse_anew(text, name)


@given(st.dictionaries(words, stages, max_size=4))
def test_a_lock_file_is_read_as_dvc_reads_it(locked):
    text = dumps_yaml({"schema": "2.0", "stages": locked})
    found = parse_yaml(text, "dvc.lock")
    assert found == parse_anew(text, "dvc.lock")
    assert [*found["stages"]] == [*locked]


def test_every_reader_gets_a_copy_of_its_own():
    text = "a:\n  b: [1, 2]\n"
    parse_yaml(text, "f")["a"]["b"].append(3)
    assert parse_yaml(text, "f") == {"a": {"b": [1, 2]}}


def test_a_broken_file_is_told_by_name_each_time():
    for name in ("one.yaml", "two.yaml"):
        with pytest.raises(YAMLFileCorruptedError) as caught:
            parse_yaml("a: [", name)
        assert caught.value.path == name
