"""The mistakes after which a run replays no more: the message of each miss says what is certain of its cause."""

from __future__ import annotations

import base64
import contextlib
import re
from typing import Any, NamedTuple

import pytest

import llmcall
from llmcall.testing import ScriptedClient

LISA = "You are Lisa, a baker in a small town. Answer as she would, in one sentence."
BREAD = "Would you buy a loaf of bread for 3 coins, given that you have two at home?"
BIG_MODEL = {"gpt-4-turbo": "gpt-4-1106-preview"}


class Call(NamedTuple):
    """Be one call of a run."""

    messages: list[Any]
    scope: str
    arguments: dict[str, Any]


def call(question: Any = BREAD, system: str = LISA, scope: str = "", **arguments: Any) -> Call:
    """Return a call with a system message, in a scope by its path."""
    return Call([{"role": "system", "content": system}, {"role": "user", "content": question}], scope, arguments)


def market(*names: str, telling: bool = False) -> list[Call]:
    """Return a run of agents, each in a scope; they may be told who is there."""
    others = f" Present are {', '.join(names)}." if telling else ""
    return [call(BREAD + others, f"You are {name}.", f"market/{name}") for name in names]


def conversation(*questions: str) -> list[Call]:
    """Return a run whose history grows."""
    messages: list[Any] = [{"role": "system", "content": LISA}]
    for question in questions:
        asked, answered = (
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"Answer to {question}"},
        )
        messages += [asked, answered]
    return [Call(messages[: 2 * number], "", {}) for number in range(1, len(questions) + 1)]


def picture(content: bytes) -> Call:
    """Return a call that shows an image."""
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    return call([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}])


def tool(price: str) -> list[dict[str, Any]]:
    """Return tools, of which one takes a price of some type."""
    properties = {"item": {"type": "string"}, "price": {"type": price}}
    parameters = {"type": "object", "properties": properties}
    return [{"type": "function", "function": {"name": "buy", "parameters": parameters}}]


Q = ("What does bread cost?", "How is the weather?", "Whom did you meet?")
rounds = [call(question, scope=f"round-{number}") for number, question in enumerate(Q)]
lisa = call(scope="trial-3/lisa")
# The run that is recorded, the one with the mistake, and what the message must say (as patterns).
MISTAKES: dict[str, tuple[list[Call], list[Call], str]] = {
    "temperature": ([call(temperature=0.7)], [call(temperature=1)], r"temperature: recorded 0\.7, asked 1"),
    "model": ([call(model="a-b")], [call(model="a-c")], 'model: recorded "a-b", asked "a-c"'),
    "limit": ([call(max_tokens=100)], [call(max_tokens=50)], "max_tokens: recorded 100, asked 50"),
    "no limit": ([call(max_tokens=100)], [call()], "max_tokens: recorded 100, not asked"),
    "alias": (
        [call(model="gpt-4-turbo")],
        [call(model="gpt-4-turbo")],
        'model: recorded "gpt-4-1106-preview", asked "gpt-4-turbo"',
    ),
    "tool changed": (
        [call(tools=tool("number"))],
        [call(tools=tool("integer"))],
        r'properties\.price\.type: recorded "number", asked "integer"',
    ),
    "tool left out": ([call(tools=tool("number"))], [call()], "tools: recorded .*, not asked"),
    "image": (
        [picture(b"one")],
        [picture(b"other")],
        r"messages\[1\]\.content\[1\]\.image_url\.url \(user\):\s+recorded +\S*sha256,",
    ),
    "rounds of a conversation": (
        conversation(*Q),
        conversation(Q[1], Q[0], Q[2]),
        r'recorded "What does bread cost\?", not asked.*this run parted from the recorded one before this call',
    ),
    "rounds in scopes": (
        rounds,
        [call(Q[1], scope="round-0")],
        "in the scope 'round-0', and the same request is recorded in 'round-1'",
    ),
    "agent added": (
        market("lisa", "oscar"),
        market("lisa", "oscar", "emma"),
        "nothing at all is recorded in the scope 'market/emma'; there are records in 'market/lisa', 'market/oscar'",
    ),
    "agent in the prompt": (
        market("lisa", "oscar", telling=True),
        market("lisa", "oscar", "emma", telling=True),
        r"\{\+, emma\+\}",
    ),
    "no scope": ([lisa], [call()], r"made outside any scope.*llmcall\.scope\('trial-3'\), llmcall\.scope\('lisa'\)"),
    "a scope": ([call()], [call(scope="trial-3")], "in the scope 'trial-3', and the same request is recorded outside"),
    "scope misspelt": (
        [lisa],
        [call(scope="trial-3/liza")],
        "in the scope 'trial-3/liza', and the same request is recorded in 'trial-3/lisa'",
    ),
    "scope's level": (
        [lisa],
        [call(scope="lisa")],
        "in the scope 'lisa', and the same request is recorded in 'trial-3/lisa'",
    ),
    "one draw more": (
        [lisa] * 2,
        [lisa] * 3,
        r"draw 2 of this request in the scope 'trial-3/lisa' is asked for, and 2 are recorded",
    ),
    "sample": ([call()], [call(sample=1)], "sample='1' is given, and the same request is recorded without"),
    "no sample": ([call(sample=1)], [call()], "no sample is given, .*recorded with sample='1'"),
    "sample in a scope": (
        [call(scope="lisa")],
        [call(scope="lisa", sample="a")],
        "draw 'a' of this request in the scope 'lisa' is asked for, and recorded is '0'",
    ),
    "system message": (
        [call()],
        [call(system=LISA.replace("one", "a"))],
        r"messages\[0\]\.content \(system\): .*\[-one-\].*\{\+a\+\}",
    ),
    "white space": ([call()], [call(BREAD.replace("loaf of", "loaf  of"))], "differs only in its white space"),
    "indentation": ([call("Buy:\n  milk")], [call("  Buy:\n    milk")], "indentation: dedent_messages=True"),
    "newline": ([call()], [call(BREAD + "\n")], "only in the white space at its end"),
    "line ends": ([call("Bread\nand milk")], [call("Bread\r\nand milk")], "line endings"),
    "name misspelt": ([call()], [call(system=LISA.replace("Lisa", "Liza"))], r"\[-Lisa-\].*\{\+Liza\+\}"),
    "quotes": ([call("Say 'yes'.")], [call("Say ’yes’.")], r"\[-'yes'-\].*\{\+’yes’\+\}"),
    "case": ([call("Buy bread?")], [call("buy Bread?")], r"\[-Buy bread-\].*\{\+buy Bread\+\}"),
}


def play(run: list[Call], client: ScriptedClient) -> None:
    """Make the calls of a run; calls in one scope follow each other in it."""
    opened: dict[str, llmcall.scope] = {}
    for each in run:
        with contextlib.ExitStack() as stack:
            outer, _, inner = each.scope.partition("/")
            if outer:
                stack.enter_context(opened.setdefault(outer, llmcall.scope(outer)))
            if inner:
                stack.enter_context(llmcall.scope(inner))
            client.send_message(each.messages, **each.arguments)


def missed(run: list[Call], client: ScriptedClient) -> str:
    """Run into the miss, and return its message as one line."""
    with pytest.raises(llmcall.CacheMissError) as caught:
        play(run, client)
    return re.sub(r"\s+", " ", str(caught.value))


def answer(messages: list[Any]) -> str:
    """Answer with the question."""
    return f"Answer to {messages[-1]['content']}"


@pytest.mark.parametrize("name", MISTAKES)
def test_the_cause_is_named(name: str) -> None:
    """By the disk cache and by a cassette; the same run again finds everything."""
    recorded, replayed, says = MISTAKES[name]
    settings = {"aliases": BIG_MODEL if name == "alias" else {}}
    with llmcall.cassette("run.jsonl"):
        play(recorded, ScriptedClient(answer, **settings))
    play(recorded, ScriptedClient(answer, cache_mode="auto", **settings))
    play(recorded, ScriptedClient(cache_mode="replay", **settings))
    told = missed(replayed, ScriptedClient(cache_mode="replay"))
    assert re.search(says, told) and "[Cache] MODE = auto" in told
    with llmcall.cassette("run.jsonl", mode="none"):
        play(recorded, ScriptedClient(**settings))
    with llmcall.cassette("run.jsonl", mode="none"):
        told = missed(replayed, ScriptedClient(aliases={}))
    assert re.search(says, told) and "the cassette run.jsonl" in told and "mode='new'" in told


def test_the_nearest_of_all() -> None:
    """The record that a mistake missed is found among all the others."""
    recorder = ScriptedClient(answer, cache_mode="auto")
    for recorded, _, _ in MISTAKES.values():
        play(recorded, recorder)
    replayer = ScriptedClient(cache_mode="replay")
    assert "trial-3/lisa" in missed([call(scope="trial-3/lusa")], replayer)
    assert "asked 70" in missed([call(max_tokens=70)], replayer)
