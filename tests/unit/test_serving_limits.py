"""What a request may cost, who may ask, and what the server tells of it: log, metrics and page."""

import asyncio
import dataclasses
import html
import re
import shlex
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from runtime.errors import UserError
from serving import server
from serving.limits import Limits
from serving.settings import Settings
from serving.sources import folder_source
from tests.support.serving import Served, save_line, save_pair

pytestmark = pytest.mark.xdist_group("serving")

LINE = "/v1/models/line:predict"
ONE = {"instances": [1.5]}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_line(folder / "line/v0.0.1/saved_model", 2.0)
    save_pair(folder / "pair/saved_model")
    return folder_source(folder, [])


def limited(source, **limits) -> Served:
    return Served(source, Settings(Limits(**limits)))


def test_a_long_body_is_refused_whatever_it_says_of_its_length(source):
    served = limited(source, body_bytes=100)
    assert served.post(LINE, b'{"instances": [1]}'.ljust(100)).status_code == 200
    assert served.post(LINE, b'{"instances": [1]}'.ljust(101)).status_code == 413

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * 30

    for headers in ({}, {"Content-Length": "10"}):
        answer = served.ask("POST", LINE, content=parts(), headers=headers)
        assert (answer.status_code, [*answer.json()]) == (413, ["error"])


def test_a_compressed_body_is_refused(source):
    assert limited(source).post(LINE, b"", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_too_many_rows_are_refused_before_they_are_read(source):
    served = limited(source, rows=2)
    assert served.post(LINE, {"instances": [1, 2]}).status_code == 200
    told = "3 rows are given; one request may have 2."
    for path, body in (
        (LINE, {"instances": [1, 2, 3]}),
        (LINE, {"inputs": [1, 2, "a"]}),
        ("/v2/models/line/infer", {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": []}]}),
    ):
        answer = served.post(path, body)
        assert (answer.status_code, answer.json()["error"]) == (400, told)


class Held:
    """A model whose answers wait until they may go on."""

    def __init__(self, served: Served) -> None:
        self.go, self.begun = threading.Event(), threading.Semaphore(0)
        entry = served.models.current["line"]
        signature = entry.model.signature

        def held(**given):
            self.begun.release()
            assert self.go.wait(60)
            return signature(**given)

        model = dataclasses.replace(entry.model, signature=held)
        served.models.current = {**served.models.current, "line": entry._replace(model=model)}


def test_beyond_the_queue_requests_are_told_to_come_back_and_the_others_are_answered(source):
    served = limited(source, computing=2, waiting=1)
    held = Held(served)

    async def scenario() -> None:
        async with served.client() as client:
            asked = [asyncio.create_task(client.post(LINE, json=ONE)) for _ in range(3)]
            for _ in range(2):
                await asyncio.to_thread(held.begun.acquire, timeout=60)
            while b"heaviside_waiting 1.0" not in served.metrics.text():
                await asyncio.sleep(0.01)
            assert b"heaviside_computing 2.0" in served.metrics.text()
            refused = await client.post(LINE, json=ONE)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await client.get("/v2/health/ready")).status_code == 200
            held.go.set()
            assert [answer.json() for answer in await asyncio.gather(*asked)] == [{"predictions": [[3.0]]}] * 3
            assert (await client.post(LINE, json=ONE)).status_code == 200

    asyncio.run(scenario())


def test_an_answer_that_takes_too_long_is_given_up_but_its_thread_is_not_lent_twice(source):
    served = limited(source, computing=1, waiting=1, seconds=1)
    held = Held(served)

    async def scenario() -> None:
        async with served.client() as client:
            for _ in range(2):  # the first one computes, the second one waits for it
                late = await client.post(LINE, json=ONE)
                assert (late.status_code, late.headers["retry-after"]) == (504, "1")
            held.go.set()
            assert (await client.post(LINE, json=ONE)).json() == {"predictions": [[3.0]]}

    asyncio.run(scenario())
    assert held.begun.acquire(timeout=1)
    assert held.begun.acquire(timeout=1)
    assert not held.begun.acquire(timeout=0.1)


def test_a_slow_client_holds_no_slot_and_ends_with_408(source):
    served = limited(source, computing=1, waiting=0, body_seconds=1)

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"instances": '
        await asyncio.sleep(30)

    async def scenario() -> None:
        async with served.client() as client:
            first = asyncio.create_task(client.post(LINE, content=slow()))
            await asyncio.sleep(0.1)
            assert (await client.post(LINE, json=ONE)).status_code == 200
            assert (await first).status_code == 408

    asyncio.run(scenario())


def test_the_token_opens_all_but_the_signs_of_life(source, monkeypatch):
    served = Served(source, Settings(token="s3cret"))
    for headers in (
        {},
        {"Authorization": "Bearer other"},
        {"Authorization": "Basic s3cret"},
        {"Authorization": "s3cret"},
    ):
        for path in ("/", "/metrics", "/openapi.json", "/v2", "/v2/models/line", "/nothing"):
            answer = served.get(path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert [*answer.json()] == ["error"]
        assert served.post(LINE, ONE, headers=headers).status_code == 401
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert served.get(path).status_code == 200
    assert served.post(LINE, ONE, headers={"Authorization": "bearer s3cret"}).status_code == 200
    assert "s3cret" not in "".join(served.lines())
    assert "s3cret" not in repr(Settings(token="s3cret"))
    for odd in ("", "a b", "ü"):
        with pytest.raises(UserError, match="HEAVISIDE_SERVE_TOKEN"):
            server.usable_token(odd)


def test_other_machines_need_a_token_or_a_word_of_the_user():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        server.refuse_open(host, None, False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(UserError, match="--open"):
            server.refuse_open(host, None, False)
        server.refuse_open(host, "token", False)
        server.refuse_open(host, None, True)


def test_on_this_machine_a_foreign_name_is_refused(source):
    here, everywhere = Served(source), Served(source, Settings(local=False))
    for host in ("127.0.0.1:8500", "localhost", "[::1]:8500"):
        assert here.get("/v2", headers={"Host": host}).status_code == 200
    for host in ("example.org", "127.0.0.1.example.org:8500", ""):
        assert here.get("/v2", headers={"Host": host}).status_code == 400
        assert everywhere.get("/v2", headers={"Host": host}).status_code == 200


def test_a_line_of_the_log_has_no_value_of_the_request(source):
    served = Served(source)
    served.post(f"{LINE}?secret=1", {"instances": [12345.5, 1]})
    served.post("/v2/models/line/infer", {"inputs": "private"})
    served.get("/" + "a" * 300)
    lines = served.lines()
    assert re.fullmatch(r"POST /v1/models/line:predict 200 [\d.]+ ms 2 rows by v0\.0\.1", lines[0])
    assert re.fullmatch(r"POST /v2/models/line/infer 400 [\d.]+ ms", lines[1])
    assert len(lines[2]) < 250
    assert not re.search("12345|secret|private", "".join(lines))
    quiet = Served(source, Settings(access_log=False))
    quiet.post(LINE, ONE)
    assert quiet.lines() == []


def test_a_defect_is_told_without_what_it_says(source, capfd):
    served = Served(source)
    entry = served.models.current["line"]

    def broken(**given):
        raise RuntimeError("the value 12345 is private")

    model = dataclasses.replace(entry.model, signature=broken)
    served.models.current = {"line": entry._replace(model=model)}
    answer = served.post(LINE, ONE)
    assert (answer.status_code, [*answer.json()]) == (500, ["error"])
    printed = "".join(capfd.readouterr())
    assert "RuntimeError while a request was answered" in printed
    assert "private" not in printed + answer.text


def test_the_metrics_count_requests_rows_and_versions(source):
    served = Served(source)
    served.post(LINE, {"instances": [1, 2, 3]})
    served.post(LINE, {"instances": ["a"]})
    served.post("/v2/models/unknown/infer", {})
    text = served.get("/metrics").text
    for line in (
        'heaviside_requests_total{model="line",protocol="v1",status="200",version="v0.0.1"} 1.0',
        'heaviside_requests_total{model="line",protocol="v1",status="400",version="v0.0.1"} 1.0',
        'heaviside_requests_total{model="",protocol="v2",status="404",version=""} 1.0',
        'heaviside_rows_total{model="line"} 3.0',
        'heaviside_request_seconds_count{model="line",protocol="v1"} 2.0',
        "heaviside_ready 1.0",
    ):
        assert line in text
    assert re.search(r'heaviside_model_info{model="line",sha256="[0-9a-f]{64}",version="v0.0.1"} 1.0', text)
    assert "unknown" not in text


def test_the_page_has_a_line_for_each_model_and_asks_no_other_site(source):
    served = Served(source, Settings(token="s3cret"))
    shown = served.get("/", headers={"Authorization": "Bearer s3cret", "Host": "127.0.0.1:8765"})
    assert shown.headers["content-type"].startswith("text/html")
    lines = [html.unescape(line) for line in re.findall("<pre>(.*?)</pre>", shown.text, re.DOTALL)]
    assert len(lines) == 2
    assert all("http://127.0.0.1:8765/v1/models/" in line for line in lines)
    assert all('"Authorization: Bearer $HEAVISIDE_SERVE_TOKEN"' in line for line in lines)
    assert "s3cret" not in shown.text
    assert not re.search(r'(src|href)="(?!/|data:,")', shown.text)
    assert shlex.split(lines[0])[-2:] == ["--data", '{"instances": [{"x": 0.0}]}']
    evil = Served(source, Settings(local=False)).get("/", headers={"Host": '"><script>'})
    assert "script" not in evil.text


def test_until_all_models_are_warm_the_server_lives_but_is_not_ready(source):
    served = Served(source, load=False)
    assert served.get("/v2/health/live").json() == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/line/ready", "/v2/models/line", "/v1/models/line"):
        assert served.get(path).status_code == 503
    assert served.post(LINE, ONE).headers["retry-after"] == "1"
    served.models.load_all()
    assert served.get("/v2/health/ready").json() == {"ready": True}
    assert served.post(LINE, ONE).status_code == 200
    served.models.ending.set()
    assert served.get("/v2/health/ready").status_code == 503
    assert served.post(LINE, ONE).status_code == 200


@pytest.mark.parametrize(("name", "value"), [("rows", 0), ("computing", 0), ("waiting", -1), ("body_bytes", 0)])
def test_a_limit_that_answers_nothing_is_refused(name, value):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is {value}"):
        Limits(**{name: value})


def test_the_description_has_every_model_and_every_status(source):
    made = Served(source).get("/openapi.json").json()
    infer = made["paths"]["/v2/models/{model}/infer"]["post"]
    assert {*infer["responses"]} == {
        *("200", "400", "401", "404", "408", "413", "415", "422", "500", "503", "504"),
    }
    examples = infer["requestBody"]["content"]["application/json"]["examples"]
    served = Served(source)
    for name in ("line", "pair"):
        assert served.post(f"/v2/models/{name}/infer", examples[name]["value"]).status_code == 200
    predict = made["paths"]["/v1/models/{model}:predict"]["post"]["requestBody"]["content"]["application/json"]
    assert served.post("/v1/models/pair:predict", predict["examples"]["pair"]["value"]).status_code == 200
    assert np.shape(predict["examples"]["pair"]["value"]["instances"][0]["image"]) == (2, 3)
    assert "HTTPValidationError" not in str(made)
