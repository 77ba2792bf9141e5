"""The mistakes after which a run replays no more: the message of each miss names its cause."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import llmcall
from llmcall.testing import ScriptedClient

Run = Callable[[ScriptedClient], Any]
Message = dict[str, Any]

LISA = "You are Lisa, a baker in a small town. Answer as she would, in one sentence."
BREAD = "Would you buy a loaf of bread for 3 coins, given that you have two at home?"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "buy",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}, "price": {"type": "number"}}},
    },
}


def asked(question: str, system: str = LISA) -> list[Message]:
    """Messages of one round."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def ask(question: str = BREAD, system: str = LISA, **arguments: Any) -> Run:
    """A run that asks once."""
    return lambda client: client.send_message(asked(question, system), **arguments)


def ask_each(*questions: str) -> Run:
    """A run that asks several times, each alone."""
    return lambda client: [client.send_message(asked(question)) for question in questions]


def in_scope(path: str, times: int = 1, **arguments: Any) -> Run:
    """A run that asks the same some times in a scope."""

    def run(client: ScriptedClient) -> None:
        with contextlib.ExitStack() as stack:
            for name in path.split("/"):
                stack.enter_context(llmcall.scope(name))
            for _ in range(times):
                client.send_message(asked(BREAD), **arguments)

    return run


def conversation(*questions: str) -> Run:
    """A run whose history grows."""

    def run(client: ScriptedClient) -> None:
        messages: list[Message] = [{"role": "system", "content": LISA}]
        for question in questions:
            messages.append({"role": "user", "content": question})
            reply = client.send_message(messages)
            assert reply is not None
            messages.append(reply)

    return run


def rounds(*questions: str) -> Run:
    """A run in which each round is a scope."""

    def run(client: ScriptedClient) -> None:
        for number, question in enumerate(questions):
            with llmcall.scope(f"round-{number}"):
                client.send_message(asked(question))

    return run


def market(*names: str, telling: bool = False) -> Run:
    """A run of agents, each in a scope; they may be told who is there."""

    def run(client: ScriptedClient) -> None:
        for name in names:
            with llmcall.scope("market"), llmcall.scope(name):
                others = f" Present are {', '.join(names)}." if telling else ""
                client.send_message(asked(BREAD + others, f"You are {name}."))

    return run


def picture(content: bytes) -> Run:
    """A run that shows an image."""
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return lambda client: client.send_message([{"role": "user", "content": parts}])


def tool_of(kind: str) -> dict[str, Any]:
    """The tool, its price of another type."""
    properties = {"item": {"type": "string"}, "price": {"type": kind}}
    return {
        **TOOL,
        "function": {**TOOL["function"], "parameters": {"type": "object", "properties": properties}},
    }


class Mistake(NamedTuple):
    """A run that is recorded, the run with the mistake, and what the message must say (as patterns)."""

    recorded: Run
    replayed: Run
    says: tuple[str, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    later: tuple[tuple[str, Any], ...] = ()


Q = ("What does bread cost?", "How is the weather?", "Whom did you meet?")
MISTAKES = {
    "changed temperature": Mistake(
        ask(temperature=0.7), ask(temperature=1), (r"temperature is 1 here, and 0\.7 in the record",)
    ),
    "reordered rounds of a conversation": Mistake(
        conversation(*Q), conversation(Q[1], Q[0], Q[2]), (r"rounds come in another order", "What does bread cost")
    ),
    "reordered rounds in scopes": Mistake(
        rounds(*Q),
        rounds(Q[1], Q[0], Q[2]),
        (r"the same request is recorded in 'round-1': rounds or actors come in another order",),
    ),
    "an agent added": Mistake(
        market("lisa", "oscar"),
        market("lisa", "oscar", "emma"),
        (r"nothing at all is recorded in the scope 'market/emma'", "'market/lisa', 'market/oscar'", "actor was added"),
    ),
    "an agent added to a list in the prompt": Mistake(
        market("lisa", "oscar", telling=True),
        market("lisa", "oscar", "emma", telling=True),
        (r"', emma' is new", r"\{\+, emma\+\}"),
    ),
    "changed model": Mistake(
        ask(model="gpt-4o-mini"), ask(model="gpt-4o"), (r"the model is gpt-4o here, and gpt-4o-mini in the record",)
    ),
    "alias missing": Mistake(
        ask(model="gpt-4-turbo"),
        ask(model="gpt-4-turbo"),
        (r"an alias is missing: \[Aliases\] gpt-4-turbo = gpt-4-1106-preview",),
        (("aliases", {"gpt-4-turbo": "gpt-4-1106-preview"}),),
        (("aliases", {}),),
    ),
    "different max_tokens": Mistake(
        ask(max_tokens=100), ask(max_tokens=50), (r"max_tokens is 50 here, and 100 in the record",)
    ),
    "max_tokens left out": Mistake(
        ask(max_tokens=100), ask(), (r"max_tokens is not given here, and the record has 100",)
    ),
    "a missing scope": Mistake(
        in_scope("trial-3/lisa"),
        ask(),
        (r"made outside any scope", r"llmcall\.scope\('trial-3'\), llmcall\.scope\('lisa'\)"),
    ),
    "a scope too many": Mistake(
        ask(), in_scope("trial-3"), (r"in the scope 'trial-3', and the same request is recorded outside any scope",)
    ),
    "another scope name": Mistake(
        in_scope("trial-3/lisa"), in_scope("trial-3/liza"), (r"'trial-3/lisa': is the name spelt in another way",)
    ),
    "a level of the scope missing": Mistake(
        in_scope("trial-3/lisa"), in_scope("lisa"), (r"a level of the scope is missing in one of them",)
    ),
    "one draw more than recorded": Mistake(
        in_scope("trial-3/lisa", 2),
        in_scope("trial-3/lisa", 3),
        (r"draw 2 of this request in the scope 'trial-3/lisa' is asked for, and 2 are recorded \(draws 0 to 1\)",),
    ),
    "sample given": Mistake(ask(), ask(sample=1), (r"sample='1' is given, and the same request is recorded without",)),
    "sample not given": Mistake(ask(sample=1), ask(), (r"no sample is given, .*recorded with sample='1'",)),
    "sample given in a scope": Mistake(
        in_scope("lisa"), in_scope("lisa", sample="a"), (r"sample= is given in one run and not, or otherwise",)
    ),
    "tool schema changed": Mistake(
        ask(tools=[TOOL]),
        ask(tools=[tool_of("integer")]),
        (r"schema of a tool changed: .*properties\.price\.type is \"integer\" here, and \"number\" in the record",),
    ),
    "a tool left out": Mistake(ask(tools=[TOOL]), ask(), (r"the schema of a tool changed: tools is not given here",)),
    "image changed": Mistake(
        picture(b"one"), picture(b"other"), (r"messages\[0\]\.content\[1\]\.image_url\.url is another image",)
    ),
    "system message changed": Mistake(
        ask(system=LISA), ask(system=LISA.replace("one sentence", "few words")), (r"the system message changed",)
    ),
    "whitespace": Mistake(ask(), ask(BREAD.replace("loaf of", "loaf  of")), (r"differs only in its white space",)),
    "indentation": Mistake(
        ask("Buy:\n  bread\n  milk"), ask("  Buy:\n    bread\n    milk"), (r"indentation: dedent_messages=True",)
    ),
    "trailing newline": Mistake(ask(), ask(BREAD + "\n"), (r"only in its trailing newline \(1 more than in the rec",)),
    "line endings": Mistake(ask("Buy bread\nand milk"), ask("Buy bread\r\nand milk"), (r"line endings",)),
    "a name misspelt": Mistake(
        ask(), ask(system=LISA.replace("Lisa", "Liza")), (r"spelt in another way: recorded 'Lisa', asked 'Liza'",)
    ),
    "typographic quotation marks": Mistake(ask("Say 'yes'."), ask("Say ’yes’."), (r"quotation marks, dashes",)),
    "upper case": Mistake(ask("Buy bread?"), ask("buy Bread?"), (r"only in upper and lower case",)),
}


def flat(text: str) -> str:
    """A message in one line."""
    return re.sub(r"\s+", " ", text)


def missed(run: Run, client: ScriptedClient) -> str:
    """Run into the miss, and return its message."""
    with pytest.raises(llmcall.CacheMissError) as caught:
        run(client)
    return flat(str(caught.value))


def answer(messages: list[Any]) -> str:
    """Answer with the question."""
    return f"Answer to {messages[-1]['content']}"


@pytest.fixture(params=list(MISTAKES))
def mistake(request: pytest.FixtureRequest) -> Iterator[Mistake]:
    """Each of the mistakes."""
    yield MISTAKES[request.param]


def test_the_cache_names_the_cause(mistake: Mistake) -> None:
    """Against the disk cache, in the mode replay."""
    mistake.recorded(ScriptedClient(answer, cache_mode="auto", **dict(mistake.settings)))
    said = missed(mistake.replayed, ScriptedClient(cache_mode="replay", **dict([*mistake.settings, *mistake.later])))
    for pattern in mistake.says:
        assert re.search(pattern, said), said
    assert "[Cache] MODE = auto" in said


def test_a_cassette_names_the_cause(mistake: Mistake) -> None:
    """Against an open cassette that only reads, whatever is in the disk cache."""
    with llmcall.cassette("run.jsonl", mode="rewrite"):
        mistake.recorded(ScriptedClient(answer, **dict(mistake.settings)))
    with llmcall.cassette("run.jsonl", mode="none"):
        said = missed(mistake.replayed, ScriptedClient(**dict([*mistake.settings, *mistake.later])))
    for pattern in mistake.says:
        assert re.search(pattern, said), said
    assert "the cassette run.jsonl" in said and "mode='new'" in said


def test_what_is_not_changed_is_no_miss(mistake: Mistake) -> None:
    """The same run again finds everything."""
    mistake.recorded(ScriptedClient(answer, cache_mode="auto", **dict(mistake.settings)))
    mistake.recorded(ScriptedClient(cache_mode="replay", **dict(mistake.settings)))


def test_twenty_mistakes_among_others() -> None:
    """The record that a mistake missed is found among all the others."""
    recorder = ScriptedClient(answer, cache_mode="auto")
    for each in MISTAKES.values():
        each.recorded(recorder)
    replayer = ScriptedClient(cache_mode="replay")
    assert "is the name spelt in another way" in missed(in_scope("trial-3/lusa"), replayer)
    assert "max_tokens is 70 here" in missed(ask(max_tokens=70), replayer)
    assert Path(".llmcall/cache/cache.db").exists()
