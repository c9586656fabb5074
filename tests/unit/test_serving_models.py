"""A new champion replaces the old one between two requests; what is damaged or unreadable changes nothing."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from orchestration import registry
from runtime.errors import UserError
from serving import models as serving_models
from serving import sources
from serving.models import Models
from serving.sources import Source, folder_source, registry_source
from tests.support.registries import AUTHOR, commit_of, make_registry
from tests.support.serving import FACTORS, Served, save_line

pytestmark = pytest.mark.xdist_group("serving")

LINE = "/v2/models/line/infer"


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> dict[str, Path]:
    """The versions of `line`, and a damaged one."""
    folder = tmp_path_factory.mktemp("versions")
    made = {version: save_line(folder / version / "saved_model", factor) for version, factor in FACTORS.items()}
    made["v0.0.9"] = shutil.copytree(made["v0.0.1"], folder / "v0.0.9/saved_model")
    (made["v0.0.9"] / "saved_model.pb").write_bytes(b"nothing")
    return made


class Champion:
    """A source whose champion a test sets."""

    def __init__(self, versions: dict[str, Path]) -> None:
        self.version = "v0.0.1"
        self.source = Source(
            lambda: {"line": self.version}, lambda: self.version, lambda wanted: {"line": versions[wanted["line"]]}
        )


def test_no_answer_mixes_versions_while_they_alternate(versions):
    champion = Champion(versions)
    served = Served(champion.source)
    xs = [float(k) for k in range(1, 9)]
    body = {"inputs": [{"name": "x", "shape": [8], "datatype": "FP32", "data": xs}]}
    ending, swaps = threading.Event(), 0

    def alternate() -> None:
        nonlocal swaps
        while not ending.is_set():
            champion.version = "v0.0.2" if champion.version == "v0.0.1" else "v0.0.1"
            assert served.models.look()
            swaps += 1

    async def asked() -> list:
        async with served.client() as client:

            async def often() -> list:
                return [await client.post(LINE, json=body) for _ in range(25)]

            return [answer for answers in await asyncio.gather(*[often() for _ in range(8)]) for answer in answers]

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        answers = asyncio.run(asked())
    finally:
        ending.set()
        thread.join()
    seen = set()
    for answer in answers:
        found = answer.json()
        seen.add(found["model_version"])
        assert answer.headers["x-model-version"] == found["model_version"]
        assert found["outputs"][0]["data"] == [FACTORS[found["model_version"]] * x for x in xs]
    assert swaps > 1
    assert seen == {*FACTORS}
    text = served.get("/metrics").text
    assert f'heaviside_swaps_total{{model="line"}} {swaps}.0' in text
    assert text.count("heaviside_model_info{") == 1


def test_a_damaged_champion_is_told_and_counted_and_the_old_one_stays(versions, capsys, monkeypatch):
    champion = Champion(versions)
    served = Served(champion.source)
    champion.version = "v0.0.9"
    for _ in range(3):  # it is not loaded again at once
        assert served.models.look()
    assert served.models.current["line"].model.version == "v0.0.1"
    assert 'heaviside_failed_loads_total{model="line"} 1.0' in served.get("/metrics").text
    told = capsys.readouterr().out
    assert told.count("line v0.0.9 cannot be served; v0.0.1 stays: ") == 1
    assert "cannot be loaded" in told
    monkeypatch.setattr(serving_models.time, "monotonic", lambda: 1e12)
    served.models.look()
    assert 'heaviside_failed_loads_total{model="line"} 2.0' in served.get("/metrics").text
    champion.version = "v0.0.2"
    served.models.look()
    assert served.models.current["line"].model.version == "v0.0.2"
    assert served.models.failures == {}


def test_an_unreadable_registry_stops_nothing(versions, capsys):
    served = Served(Champion(versions).source)

    def unreadable() -> dict:
        raise OSError("the disk is away")

    served.models.source = served.models.source._replace(wanted=unreadable)
    assert [served.models.look() for _ in range(2)] == [False, False]
    assert capsys.readouterr().out.count("the disk is away") == 1
    assert served.post(LINE, {"inputs": []}).status_code == 400
    assert "heaviside_failed_looks_total 2.0" in served.get("/metrics").text
    served.models.source = served.models.source._replace(wanted=dict)  # nor does a champion that is withdrawn
    assert served.models.look()
    assert "line" in served.models.current


def test_a_damaged_model_at_the_start_is_an_error(versions):
    champion = Champion(versions)
    champion.version = "v0.0.9"
    failed = Served(champion.source, load=False)
    failed.models.run(lambda: None, failed.models.ending.set)
    assert isinstance(failed.models.failure, UserError)
    assert "v0.0.9/saved_model cannot be loaded" in str(failed.models.failure)
    assert not failed.models.ready


def test_what_is_no_model_of_numbers_is_refused(tmp_path):
    import tensorflow as tf

    from tests.support.serving import save

    texts = save(tf.Module(), tmp_path / "texts/saved_model", tf.identity, [tf.TensorSpec([None], tf.string, name="x")])
    with pytest.raises(UserError, match="'x' is of type object, which is not served"):
        serving_models.warmed(texts, "texts", "v1")

    def first(x):
        return {"output": x[:1]}

    short = save(tf.Module(), tmp_path / "short/saved_model", first, [tf.TensorSpec([None], name="x")])
    with pytest.raises(UserError, match=r"the output 'output' has the shape \[1\] for 32 rows"):
        serving_models.warmed(short, "short", "v1")


def test_of_a_folder_the_newest_version_is_served(tmp_path, versions):
    for version, name in (("v0.0.1", "v0.0.9"), ("v0.0.2", "v0.0.10")):
        shutil.copytree(versions[version], tmp_path / "line" / name / "saved_model")
    shutil.copytree(versions["v0.0.1"], tmp_path / "plain/saved_model")
    (tmp_path / "baselines").mkdir()
    source = folder_source(tmp_path, [])
    wanted = source.wanted()
    assert wanted["line"] == "v0.0.10"
    assert len(wanted["plain"]) == 12
    assert {*wanted} == {"line", "plain"}
    served = Served(source)
    assert served.models.current["line"].model.version == "v0.0.10"
    before = source.stamp()
    shutil.copytree(versions["v0.0.1"], tmp_path / "line/v0.0.11/saved_model")
    assert source.stamp() != before
    served.models.look()
    assert served.models.current["line"].model.version == "v0.0.11"
    assert {*folder_source(tmp_path, ["plain"]).wanted()} == {"plain"}
    with pytest.raises(UserError, match=r"unknown model 'plane'. Did you mean 'plain'"):
        folder_source(tmp_path, ["plane"])
    with pytest.raises(UserError, match=r"has no SavedModel. Put one into"):
        folder_source(tmp_path / "baselines", [])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_registry(tmp_path_factory.mktemp("registry") / "made", 2)


def test_the_champions_of_the_registry_are_wanted_and_a_promotion_is_noticed(made, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(made, tmp_path / "a repository"))
    monkeypatch.chdir(folder)
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(registry, "check_files", lambda version: None)  # DVC has none of this repository
    for number in (1, 2):
        registry.register("iris_mlp", commit_of(folder, number), "a version")
    with pytest.raises(UserError, match=r"no model has a champion yet. Promote one"):
        registry_source([])
    with pytest.raises(UserError, match="iris_mlp has no champion yet"):
        registry_source(["iris_mlp"])
    registry.promote("iris_mlp", "v0.0.1", "the first one")
    source = registry_source([])
    before = source.stamp()
    assert source.wanted() == {"iris_mlp": "v0.0.1"}
    assert source.stamp() == before
    registry.promote("iris_mlp", "v0.0.2", "better")
    assert source.stamp() != before
    assert source.wanted() == registry_source(["iris_mlp"]).wanted() == {"iris_mlp": "v0.0.2"}
    with pytest.raises(UserError, match="unknown model 'iris_mpl'"):
        registry_source(["iris_mpl"])
    (folder / ".retrain/champions/iris_mlp/v0.0.1/saved_model").mkdir(parents=True)
    assert sources.fetch_champions({"iris_mlp": "v0.0.1"}) == {
        "iris_mlp": Path(".retrain/champions/iris_mlp/v0.0.1/saved_model")
    }


def test_what_waits_for_a_first_champion_gets_it(versions):
    wanted = {"line": "v0.0.1"}
    source = Source(lambda: wanted, lambda: len(wanted), lambda some: dict.fromkeys(some, versions["v0.0.2"]))
    served = Served(source)
    wanted["other"] = "v0.0.2"
    assert served.get("/v2/models/other").status_code == 404
    assert served.models.look()
    assert served.get("/v2/models/other").json()["versions"] == ["v0.0.2"]
    assert isinstance(served.models, Models)
