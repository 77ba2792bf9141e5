"""Actors of a program that does not know llmcall, and the names that they get."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from clients import KEY, Server, http
from commands import LONGEST
from servers import OK, ScriptedServer

import llmcall


@pytest.fixture
def server(httpserver: Any) -> ScriptedServer:
    """A model's server."""
    return ScriptedServer(httpserver, OK)


def scopes_of(server: ScriptedServer, *conversations: list[Any], **settings: Any) -> list[str]:
    """Ask each conversation, and return the scopes in which its answers were recorded, in order."""
    with llmcall.http_client(**settings) as http_client:
        client = openai.OpenAI(api_key="none", base_url=server.base_url, http_client=http_client)
        for messages in conversations:
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, temperature=1)
    records = llmcall.client("openai").cache.records()
    return [record.scope for record in records]


def conversation(user: Any, system: Any = None) -> list[dict[str, Any]]:
    """Return a conversation of a system message and the user's."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": user}]


def test_a_group_in_the_first_user_message_names_the_actor(server: ScriptedServer) -> None:
    """The first group of ``"user:REGEX"``, also in parts, whatever comes after."""
    parts = [{"type": "text", "text": "You are Bart, 10."}, {"type": "text", "text": "Bread?"}]
    later = [{"role": "assistant", "content": "No."}, {"role": "user", "content": "You are Moe."}]
    asked = [
        conversation("You are Lisa, 8."),
        conversation(parts),
        [*conversation("You are Lisa, 8."), *later],
    ]
    assert scopes_of(server, *asked, actor=r"user:You are (\w+)") == ["Lisa", "Bart", "Lisa"]


def test_a_match_in_the_system_message_names_the_actor(server: ScriptedServer) -> None:
    """By ``"system:REGEX"``; without a group, the whole match does."""
    asked = [
        conversation("You are Moe.", f"You are {name}, {age}.") for name in "AB" for age in "89"
    ]
    assert scopes_of(server, *asked, actor=r"system:You are (\w+)") == [*"AABB"]
    llmcall.client("openai").cache.clear()
    assert scopes_of(server, asked[0], actor=r"system:\w+(?=,)") == ["A"]


def test_a_request_without_an_actor_is_sent_while_another_threads_has_one() -> None:
    """In a thread that knows no scope; both are under way at once."""
    both = threading.Barrier(2, timeout=LONGEST)
    server = Server()

    def respond(request: Any) -> Any:
        both.wait()
        return server.answer(request)

    transport = http.MockTransport(respond)
    with llmcall.http_client(actor=r"user:I am (\w+)", transport=transport) as http_client:
        client = openai.OpenAI(api_key=KEY, http_client=http_client)

        def ask(text: str) -> None:
            messages: Any = conversation(text)
            client.chat.completions.create(model="m", messages=messages)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, ["I am Lisa.", "Bread?"]))
    assert len(server.requests) == 2


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_an_actors_draws_count_from_0_in_each_cassette(order: list[int]) -> None:
    """Whatever its client asked before: a block that runs twice records, then replays, alone and in a suite."""
    server = Server()
    with llmcall.http_client(actor="system", transport=server.transport) as http_client:
        client = openai.OpenAI(api_key=KEY, http_client=http_client)

        def play() -> list[str | None]:
            asked: Any = conversation("Bread?", "You are Lisa.")
            return [
                client.chat.completions.create(model="m", messages=asked).choices[0].message.content
                for _ in range(2)
            ]

        answers = {}
        for number in order:
            with llmcall.cassette(f"{number}.jsonl") as tape:
                answers[number] = play()
            assert [record.sample for record in tape.all_records()] == [
                "You are Lisa.-3fe313b2#0",
                "You are Lisa.-3fe313b2#1",
            ]
        for number in reversed(order):
            with llmcall.cassette(f"{number}.jsonl", mode="none"):
                assert play() == answers[number]


def test_a_name_that_no_scope_can_have_becomes_its_beginning_and_a_digest(
    server: ScriptedServer,
) -> None:
    """The digest is of the whole, so that two actors stay two."""
    asked = [conversation(f"Role: {role}\nBread?") for role in ("a/b", "a#b", "x" * 60)]
    found = scopes_of(server, *asked, actor="user:Role: (.*)")
    assert [name.rpartition("-")[0] for name in found] == ["a b", "a b", "x" * 40]
    assert len(set(found)) == 3


def test_a_developer_message_names_an_actor_as_a_system_message_does(
    server: ScriptedServer,
) -> None:
    """OpenAI's newer models call it so."""
    asked = [{"role": "developer", "content": "You are Lisa."}, *conversation("Bread?")]
    assert scopes_of(server, asked, actor="system") == ["You are Lisa.-3fe313b2"]


@pytest.mark.parametrize(
    ("actor", "texts"),
    [
        ("system", ["You are Lisa. It is 12:03:01.", "You are Lisa. It is 12:03:02."]),
        ("user:^(.*)$", ["Lisa since 2026-01-02", "Lisa since 2026-01-03"]),
    ],
)
def test_normalizers_apply_to_the_names_of_actors(
    server: ScriptedServer, actor: str, texts: list[str]
) -> None:
    """Texts that do not matter to keys do not distinguish actors either."""
    asked = [conversation(text, text) for text in texts]
    names = scopes_of(server, *asked, actor=actor, cache_normalize="times")
    assert len(set(names)) == 1
    assert names[0].startswith(("You are Lisa. It is times", "Lisa since"))


def test_a_request_that_names_no_actor_stands_in_the_scope_around_it(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says so once."""
    with llmcall.scope("day-1"):
        names = scopes_of(
            server,
            conversation("Bread?"),
            conversation("You are Lisa."),
            conversation("Milk?"),
            actor="user:You are (.*)[.]",
        )
    assert names == ["day-1", "day-1/Lisa", "day-1"]
    words = (
        "some requests name no actor (the first: POST /v1/chat/completions) and belong to the surrounding scope. "
        "If several actors send such requests, choose an actor= that names them, too"
    )
    assert caplog.messages.count(words) == 1


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        ("user:(", r"its regular expression is invalid: missing \), unterminated subpattern"),
        ("users:(x)", 'it must be a function of the request, "system"'),
    ],
)
def test_a_wrong_actor_is_refused_where_it_is_given(actor: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        llmcall.http_client(actor=actor)
    with pytest.raises(ValueError, match=message), llmcall.patched(actor=actor):
        raise AssertionError("it must not be entered")


def test_an_actor_function_that_fails_is_named(server: ScriptedServer) -> None:
    """The program gets an error with what the function raised; nothing is sent."""

    def who(request: llmcall.types.ProgramRequest) -> str:
        return str(request.headers["x-actor"])

    with pytest.raises(
        openai.APIStatusError, match=r"actor function .*who failed .*KeyError: 'x-actor'"
    ):
        scopes_of(server, conversation("Bread?"), actor=who)
    assert server.requests == []


SYSTEMS: dict[str, dict[str, Any]] = {
    "responses": {"model": "m", "input": "Bread?", "instructions": "You are Lisa."},
    "v1/messages": {"model": "m", "messages": conversation("Bread?"), "system": "You are Lisa."},
    "v1/models/m:generateContent": {
        "contents": [{"parts": [{"text": "Bread?"}]}],
        "systemInstruction": {"parts": [{"text": "You are Lisa."}]},
    },
}


@pytest.mark.parametrize("path", SYSTEMS)
def test_the_system_text_of_every_api_names_the_actor(path: str) -> None:
    transport = http.MockTransport(lambda _: http.Response(200, json={"id": "a", "content": []}))
    with (
        llmcall.cassette("run.jsonl", actor="system") as tape,
        http.Client(transport=transport) as client,
    ):
        client.post(f"https://api.example/{path}", json=SYSTEMS[path])
    assert [record.scope for record in tape.all_records()] == ["You are Lisa.-3fe313b2"]
