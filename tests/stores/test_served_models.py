"""Which model gave the answers of a recording, and on which days: in a cassette's header, from
servers, caches and loaded files.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import commands
import pytest
from clients import Responding, client_for, http
from commands import NEEDS_POSIX
from files import in_database
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, completion

import llmcall
from llmcall import cassette, scope

SNAPSHOT = "gpt-4o-mini-2024-07-18"
PATH = "tape.jsonl"
NOW = time.time()


def answering(*fingerprints: str, **settings: Any) -> Responding:
    """Return a client whose server gives a snapshot's name, and fingerprints in turn."""
    created = {"created": int(NOW)}
    responses = [
        completion(system_fingerprint=fingerprint, **created) for fingerprint in fingerprints
    ]
    return Responding(*(responses or [completion(**created)]), **settings)


def recorded(path: str = PATH, *questions: str, mode: str = "once", **settings: Any) -> str:
    """Record answers to questions, and return today's day."""
    client = answering(**settings)
    with cassette(path, mode=mode):
        for question in questions or ("Hi",):
            client.send_message(question, on_error="raise")
    return today()


def today() -> str:
    """Return today's day in UTC."""
    return datetime.fromtimestamp(NOW, timezone.utc).date().isoformat()


def header(path: str = PATH) -> dict[str, Any]:
    """Return a file's first line."""
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8").partition("\n")[0])
    return found


def with_header(path: str, **fields: Any) -> None:
    """Change fields of a file's header; ``None`` takes one out."""
    _, _, rest = Path(path).read_text(encoding="utf-8").partition("\n")
    first = {name: value for name, value in {**header(path), **fields}.items() if value is not None}
    Path(path).write_text(f"{json.dumps(first)}\n{rest}", encoding="utf-8")


def test_a_header_says_which_model_answered_and_when() -> None:
    """It has the first and the last day of each model, by the server's name, and its fingerprints."""
    client = answering("fp_b", "fp_a", "fp_b")
    with cassette(PATH), scope("trial"):
        for _ in range(3):
            client.send_message("Hi", on_error="raise")
    day = {"first": today(), "last": today()}
    assert header()["served"] == {SNAPSHOT: {**day, "fingerprints": ["fp_a", "fp_b"]}}


def test_a_model_keeps_its_days_if_one_of_its_records_is_left_out() -> None:
    """The fingerprint of that answer looks like a credential."""
    client = answering("fp_a", "sk-" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7")
    with cassette(PATH):
        client.send_message("Hi", on_error="raise")
        client.send_message("Bye", on_error="raise")
    day = {"first": today(), "last": today()}
    assert header()["served"] == {SNAPSHOT: {**day, "fingerprints": ["fp_a"]}}


@pytest.mark.feature("report")
def test_the_providers_behind_a_gateway_are_named_and_a_mix_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the header, frame, usage, report and checklist; OpenRouter's responses name one."""
    answers = [completion(provider=name, created=CREATED) for name in ("Nebius", "DeepInfra", "")]
    client = Responding(*answers, model="m")
    for _ in range(2):
        with cassette(PATH) as tape, scope("trial"), llmcall.track() as usage:
            for _ in range(3):
                client.send_message("Hi", on_error="raise")
        assert {*usage.served} == {SNAPSHOT, f"{SNAPSHOT} via Nebius", f"{SNAPSHOT} via DeepInfra"}
    providers = ["DeepInfra", "Nebius"]
    assert header()["served"] == {SNAPSHOT: {**THAT_DAY, "providers": providers}}
    assert [*tape.to_frame()["provider"]][:2] == ["Nebius", "DeepInfra"]
    said = [line for line in caplog.messages if "two providers answered requests to m: " in line]
    assert len(said) == 1 and f"{SNAPSHOT} via Nebius and {SNAPSHOT} via DeepInfra" in said[0]
    assert "reply.raw['provider']" in said[0]
    assert f"answered by {SNAPSHOT} via DeepInfra and Nebius (2023-11-14)" in commands.done(
        "show", PATH
    )
    commands.done("report", PATH, "-o", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert f"Answered by {SNAPSHOT} via DeepInfra and Nebius at " in page


CREATED = 1_700_000_000  # 14 November 2023
THAT_DAY = {"first": "2023-11-14", "last": "2023-11-14"}
UNDATED = {name: value for name, value in completion().items() if name != "created"}
IN_WORDS = [{"type": "output_text", "text": "Two coins."}]
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": float(CREATED),
    "status": "completed",
    "model": SNAPSHOT,
    "output": [{"type": "message", "role": "assistant", "content": IN_WORDS}],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
MESSAGE = {"type": "message", "model": SNAPSHOT, "content": [{"type": "text", "text": "Two."}]}


@pytest.mark.parametrize("source", ["server", "cache"])
def test_the_day_is_that_on_which_the_response_was_created(source: str) -> None:
    """Whenever it was recorded, also out of the cache."""
    client = Responding(completion(created=CREATED))
    if source == "cache":
        client.send_message("Hi", on_error="raise")
    with cassette(PATH):
        client.send_message("Hi", on_error="raise")
    assert header()["served"] == {SNAPSHOT: THAT_DAY}


@pytest.mark.parametrize("created", [None, 0, 17, "today", 1e300, CREATED * 1000])
def test_an_answer_of_a_client_of_ones_own_without_a_time_has_no_day(created: Any) -> None:
    """It may answer from a file; nor has a number that is no time of a response."""
    with cassette(PATH):
        Responding(completion(created=created)).send_message("Hi", on_error="raise")
    assert "served" not in header()
    assert cassette(PATH).served == {SNAPSHOT: None}


@NEEDS_POSIX
@pytest.mark.parametrize("created", ["2023-11-14T23:30:00", "2023-11-14T15:30:00.123456789-08:00"])
def test_a_day_in_words_is_that_in_utc_wherever_it_is_read(
    created: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a time without a zone, and of Ollama's, which has 9 digits of a second."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "UTC+8")
        time.tzset()
        with cassette(PATH):
            Responding(completion(created=created)).send_message("Hi", on_error="raise")
    time.tzset()
    assert header()["served"] == {SNAPSHOT: THAT_DAY}


def test_the_day_of_a_response_of_the_other_api_is_its_own(httpserver: HTTPServer) -> None:
    """The Responses API says ``created_at``."""
    server = ScriptedServer(httpserver, Answer(200, RESPONSE))
    with cassette(PATH), client_for(server.base_url, api="responses", api_key="k") as client:
        client.send_message("Hi", on_error="raise")
    assert header()["served"] == {
        SNAPSHOT: {**THAT_DAY, "hosts": [urlsplit(server.base_url).hostname]}
    }


@pytest.mark.parametrize(
    ("path", "response", "is_dated"),
    [("responses", RESPONSE, True), ("messages", MESSAGE, False)],
    ids=["responses", "messages"],
)
def test_the_day_of_a_programs_answer_is_its_own_or_that_on_which_it_came(
    path: str, response: dict[str, Any], is_dated: bool
) -> None:
    """The Messages API gives no time."""
    transport = http.MockTransport(lambda _: http.Response(200, json=response))
    body = {"model": "m", "input": "Hi", "messages": [{"role": "user", "content": "Hi"}]}
    with cassette(PATH), http.Client(transport=transport) as client:
        client.post(f"https://api.example/v1/{path}", json=body)
    expected = THAT_DAY if is_dated else {"first": today(), "last": today()}
    assert header()["served"] == {SNAPSHOT: {**expected, "hosts": ["api.example"]}}


def test_an_undated_answer_from_the_cache_has_the_day_on_which_the_cache_got_it(
    httpserver: HTTPServer,
) -> None:
    """A server gave it, on another day than that of the recording."""
    server = ScriptedServer(httpserver, Answer(200, {**UNDATED, "system_fingerprint": "fp_a"}))
    with client_for(server.base_url, api_key="k", cache_path="cache") as client:
        client.send_message("Hi", on_error="raise")
        stored_at = datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp()
        in_database("cache", "UPDATE Cache SET store_time = ?", stored_at)
        with cassette(PATH):
            client.send_message("Hi", on_error="raise")
    that_day = {"first": "2026-03-01", "last": "2026-03-01"}
    of_the_server = {"hosts": [urlsplit(server.base_url).hostname], "fingerprints": ["fp_a"]}
    assert header()["served"] == {SNAPSHOT: {**that_day, **of_the_server}}


@pytest.mark.parametrize("has_cache", [True, False])
def test_a_header_names_all_hosts_that_gave_a_models_answers(*, has_cache: bool) -> None:
    """Without port, key or path; of chats and embeddings, asked through an SDK or by llmcall, and out
    of the cache, which knows where it got them.
    """
    vector = {"data": [{"index": 0, "embedding": [0.5]}], "model": "embedder", "usage": {}}

    def answered(request: Any) -> Any:
        is_chat = request.url.path.endswith("/chat/completions")
        return http.Response(200, json=completion(created=CREATED) if is_chat else vector)

    def ask() -> None:
        with http.Client(transport=http.MockTransport(answered)) as client:
            for place in ("https://one.example/v1", "https://user:pw@two.example:8443/v1"):
                body = {"model": "m", "messages": [{"role": "user", "content": place[-15:]}]}
                client.post(f"{place}/chat/completions", json=body)
            client.post("https://three.example/v1/embeddings", json={"model": "e", "input": "Hi"})

    if has_cache:
        with llmcall.patched():
            ask()
    with cassette(PATH):
        ask()
    hosts = {model: entry["hosts"] for model, entry in header()["served"].items()}
    assert hosts == {SNAPSHOT: ["one.example", "two.example"], "embedder": ["three.example"]}
    read = cassette(PATH).served[SNAPSHOT]
    assert read is not None and read.hosts == ("one.example", "two.example")
    assert "pw@" not in Path(PATH).read_text(encoding="utf-8")


def test_a_recording_that_goes_on_joins_the_days() -> None:
    """The first day is that of the first answer, the last that of the last."""
    recorded(PATH, "Hi")
    with_header(PATH, served={SNAPSHOT: {"first": "2026-03-01", "last": "2026-03-01"}})
    recorded(PATH, "Bye", mode="new")
    assert header()["served"] == {SNAPSHOT: {"first": "2026-03-01", "last": today()}}
    assert f"answered by {SNAPSHOT} (2026-03-01 to {today()})" in commands.done("show", PATH)


def test_headers_that_differ_in_their_days_are_joined() -> None:
    """git's merge by union gives a file with both headers; so does 'cassette merge' with two files."""
    recorded(PATH, "Hi", cache_mode="off")
    days = {"first": "2026-03-01", "last": "2026-03-02", "hosts": ["two.example"]}
    with_header(PATH, served={SNAPSHOT: days})
    recorded("other.jsonl", "Bye", cache_mode="off")
    other_days = {"first": "2026-02-01", "last": "2026-02-01", "hosts": ["one.example"]}
    with_header("other.jsonl", served={SNAPSHOT: other_days})
    commands.done("cassette", "merge", PATH, "other.jsonl", "-o", "merged.jsonl")
    texts = [Path(path).read_text(encoding="utf-8") for path in (PATH, "other.jsonl")]
    Path("union.jsonl").write_text("".join(texts), encoding="utf-8")
    for path in ("merged.jsonl", "union.jsonl"):
        found = cassette(path).served[SNAPSHOT]
        assert found is not None and (found.first, found.last) == ("2026-02-01", "2026-03-02")
        assert found.hosts == ("one.example", "two.example")


DAYS = {"first": "2026-03-01", "last": "2026-03-02"}


def test_mode_update_keeps_the_days_of_models() -> None:
    """The file is written again with fewer records."""
    recorded(PATH, "Hi", "Bye", cache_mode="off")
    with_header(PATH, served={SNAPSHOT: DAYS})
    recorded(PATH, "Hi", mode="update", cache_mode="off")
    assert header()["served"] == {SNAPSHOT: DAYS}
    assert len(cassette(PATH).all_records()) == 1


@pytest.fixture
def without_days() -> str:
    """A recording whose header has no days, beside the usual one with the same answer."""
    recorded(PATH, "Hi", cache_mode="off")
    recorded("old.jsonl", "Hi", cache_mode="off")
    with_header("old.jsonl", served=None)
    return "old.jsonl"


def test_show_names_the_models_and_their_days(without_days: str) -> None:
    """It says that days are unknown if they are: nobody guesses them when a file is read."""
    assert cassette(without_days).served == {SNAPSHOT: None}
    assert f"answered by {SNAPSHOT} ({today()})" in commands.done("show", PATH)
    assert f"answered by {SNAPSHOT} (days not recorded)" in commands.done("show", without_days)


def test_diff_names_the_models_and_their_days_if_the_runs_differ_in_them(
    without_days: str,
) -> None:
    assert "answered by" not in commands.done("diff", PATH, PATH)
    printed = commands.done("diff", PATH, without_days)
    assert f"{PATH}: answered by {SNAPSHOT} ({today()})" in printed
    assert f"{without_days}: answered by {SNAPSHOT} (days not recorded)" in printed
