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
    "temperature": ([call(temperature=0.7)], [call(temperature=1)], r"temperature is 1 here, and 0\.7 in the record"),
    "model": ([call(model="a-b")], [call(model="a-c")], "the model is a-c here, and a-b in the record"),
    "limit": ([call(max_tokens=100)], [call(max_tokens=50)], "max_tokens is 50 here, and 100 in the record"),
    "no limit": ([call(max_tokens=100)], [call()], "max_tokens is not given here, and the record has 100"),
    "alias": ([call(model="gpt-4-turbo")], [call(model="gpt-4-turbo")],
              r"an alias is missing: \[Aliases\] gpt-4-turbo = gpt-4-1106-preview"),
    "tool changed": ([call(tools=tool("number"))], [call(tools=tool("integer"))],
                     r'schema of a tool changed: .*properties\.price\.type is "integer" here, and "number" in the rec'),
    "tool left out": ([call(tools=tool("number"))], [call()], "schema of a tool changed: tools is not given here"),
    "image": ([picture(b"one")], [picture(b"other")], r"messages\[1\]\.content\[1\]\.image_url\.url is another image"),
    "rounds of a conversation": (conversation(*Q), conversation(Q[1], Q[0], Q[2]),
                                 "What does bread cost.*rounds come in another order"),
    "rounds in scopes": (rounds, [call(Q[1], scope="round-0")],
                         "the same request is recorded in 'round-1': rounds or actors come in another order"),
    "agent added": (market("lisa", "oscar"), market("lisa", "oscar", "emma"),
                    "nothing at all is recorded in the scope 'market/emma'.*'market/oscar'.*actor was added"),
    "agent in the prompt": (market("lisa", "oscar", telling=True), market("lisa", "oscar", "emma", telling=True),
                            r"', emma' is new"),
    "no scope": ([lisa], [call()], r"made outside any scope.*llmcall\.scope\('trial-3'\), llmcall\.scope\('lisa'\)"),
    "a scope": ([call()], [call(scope="trial-3")], "in the scope 'trial-3', and the same request is recorded outside"),
    "scope misspelt": ([lisa], [call(scope="trial-3/liza")], "'trial-3/lisa': is the name spelt in another way"),
    "scope's level": ([lisa], [call(scope="lisa")], "a level of the scope is missing in one of them"),
    "one draw more": ([lisa] * 2, [lisa] * 3,
                      r"draw 2 of this request in the scope 'trial-3/lisa' is asked for, and 2 are recorded"),
    "sample": ([call()], [call(sample=1)], "sample='1' is given, and the same request is recorded without"),
    "no sample": ([call(sample=1)], [call()], "no sample is given, .*recorded with sample='1'"),
    "sample in a scope": ([call(scope="lisa")], [call(scope="lisa", sample="a")], "sample= is given in one run and"),
    "system message": ([call()], [call(system=LISA.replace("one", "a"))], "the system message changed"),
    "white space": ([call()], [call(BREAD.replace("loaf of", "loaf  of"))], "differs only in its white space"),
    "indentation": ([call("Buy:\n  milk")], [call("  Buy:\n    milk")], "indentation: dedent_messages=True"),
    "newline": ([call()], [call(BREAD + "\n")], r"only in its trailing newline \(1 more than in the rec"),
    "line ends": ([call("Bread\nand milk")], [call("Bread\r\nand milk")], "line endings"),
    "name misspelt": ([call()], [call(system=LISA.replace("Lisa", "Liza"))], "recorded 'Lisa', asked 'Liza'"),
    "quotes": ([call("Say 'yes'.")], [call("Say ’yes’.")], "quotation marks, dashes"),
    "case": ([call("Buy bread?")], [call("buy Bread?")], "only in upper and lower case"),
}  # fmt: skip


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
    assert "is the name spelt in another way" in missed([call(scope="trial-3/lusa")], replayer)
    assert "max_tokens is 70 here" in missed([call(max_tokens=70)], replayer)
