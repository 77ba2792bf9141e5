"""The explanation of a miss: what is certain of it, how it is shown, where it looks, and what it
never shows.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import re
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, start

import llmcall
from llmcall.testing import ScriptedClient
from llmcall.types import Miss

pytestmark = pytest.mark.newest_only

QUESTION = "Would you buy a loaf of bread for 3 coins?"
KEY = "sk-proj-abcdEFGH1234567890abcdEFGH1234567890"
Run = Callable[[ScriptedClient], Any]


def recorder(**settings: Any) -> ScriptedClient:
    """Return a client that records."""
    return ScriptedClient(lambda messages: "Yes.", cache_mode="auto", **settings)


def flat(text: object) -> str:
    """Return a message in one line."""
    return " ".join(str(text).split())


def missed(
    run: Any, client: ScriptedClient | None = None, tape: str = ""
) -> llmcall.CacheMissError:
    """Return the error of a run, or of a question, that is not recorded, by a cassette if one is named."""
    replaying = llmcall.cassette(tape, mode="none") if tape else nullcontext()
    with pytest.raises(llmcall.CacheMissError) as caught, replaying:
        (ask(run) if isinstance(run, str) else run)(client or ScriptedClient())
    return caught.value


def explained(question: Any = QUESTION, **arguments: Any) -> Miss:
    """Return what the cache explains of a request."""
    client = recorder()
    return client.cache.explain(client.build_request(question, **arguments))


def ask(question: Any = QUESTION, scope: str = "", times: int = 1, **arguments: Any) -> Run:
    """Return a run that asks a question, in some scopes."""

    def run(
        client: ScriptedClient, path: tuple[str, ...] = tuple(scope.split("/")) if scope else ()
    ) -> None:
        if path:
            with llmcall.scope(path[0]):
                run(client, path[1:])
            return
        for _ in range(times):
            client.send_message(question, **arguments)

    return run


# What is recorded, what is asked with a mistake, and what the message says.
MISTAKES: dict[str, tuple[Run, Run, str]] = {
    "temperature": (
        ask(temperature=0.7),
        ask(temperature=1),
        r"temperature: recorded 0\.7, requested 1",
    ),
    "model": (ask(), ask(model="gpt-4o"), r'model: recorded "gpt-6-luna", requested "gpt-4o"'),
    "a word": (ask(), ask(QUESTION.replace("loaf", "lot")), r"\[-loaf-\].*\{\+lot\+\}"),
    "a long path": (
        ask("/home" * 20 + "/1.md"),
        ask("/home" * 20 + "/2.md"),
        r"/\[-1\.md-\] \{\+2\.md\+\}",
    ),
    "no scope": (
        ask(scope="trial/lisa"),
        ask(),
        r"outside any scope.*\.scope\('trial'\), llmcall\.scope\('lisa'\)",
    ),
    "a scope": (
        ask(),
        ask(scope="trial"),
        "in the scope 'trial', but the same request is recorded outside any scope",
    ),
    "another scope": (
        ask(scope="trial/lisa"),
        ask(scope="trial/liza"),
        "'trial/liza', .* recorded in 'trial/lisa'",
    ),
    "nothing in the scope": (
        ask(scope="a/lisa"),
        ask("Or?", scope="a/emma"),
        "in the scope 'a/emma';.* in 'a/lisa'",
    ),
    "one draw more": (
        ask(scope="trial", times=2),
        ask(scope="trial", times=3),
        r"draw 2 .* the recorded draws are 0 to 1",
    ),
    "a draw that was dropped": (
        ask(scope="trial", sample=1),
        ask(scope="trial"),
        r"draw 0 .* a later one is recorded: .* forgotten",
    ),
    "a sample": (
        ask(),
        ask(sample=1),
        "recorded outside any scope as another sample",
    ),
}


@pytest.mark.parametrize(
    ("name", "store"), [*((name, "cassette") for name in MISTAKES), ("a word", "cache")]
)
def test_a_miss_shows_what_differs_from_the_nearest_record(name: str, store: str) -> None:
    """Against the disk cache or a cassette, also among other records, and with a way that asks
    nothing again.
    """
    recorded, replayed, says = MISTAKES[name]
    if store == "cache":
        recorded(recorder())
        error = missed(replayed, ScriptedClient(cache_mode="replay"))
        assert "MODE = auto in [Cache]" in flat(error)
    else:
        with llmcall.cassette("run.jsonl", mode="rewrite"):
            recorded(recorder())
        error = missed(replayed, tape="run.jsonl")
        assert (
            "llmcall.cassette('run.jsonl', mode='update') keeps recorded answers, moves unused ones to the disk "
            "cache and requests only missing ones" in flat(error)
        )
        assert "the cassette run.jsonl" in flat(error)
        assert "rewrite" not in str(error)
    assert re.search(says, flat(error)), error


def test_a_miss_holds_the_request_the_nearest_record_and_their_differences() -> None:
    """Kind, name, sample and first words of the request. The record in the same scope is nearest; what differs has
    both values.
    """
    client = recorder()
    ask(temperature=0.5)(client)
    ask(temperature=0.5, scope="lisa")(client)
    miss = explained(temperature=1)
    assert (miss.kind, miss.name, miss.sample) == ("chat", "gpt-6-luna", None)
    assert miss.recorded is False
    assert miss.opening == f"user: {QUESTION}"
    assert str(miss).startswith("chat request to gpt-6-luna is not recorded (key ")
    nearest, _ = client.cache.records()
    assert (miss.nearest, miss.causes) == (nearest, ())
    assert [
        (difference.place, difference.recorded, difference.requested)
        for difference in miss.differences
    ] == [("temperature", 0.5, 1)]


def test_a_miss_fits_into_a_terminal_of_80_columns() -> None:
    """Its text is the same in a log, a test and a terminal."""
    with llmcall.cassette("run.jsonl"):
        ask("What does the baker at the corner of the market ask for bread? " * 3)(recorder())
    error = missed(ask("Who buys bread at the market? " * 9), tape="run.jsonl")
    lines = str(error).splitlines()
    assert [line[2:11].strip() for line in lines[1:5]] == ["asked", "scope", "looked in", "nearest"]
    assert max(map(len, lines)) <= 80, str(error)


def test_the_error_carries_the_miss() -> None:
    """The error's text is the explanation, and both survive a pickle."""
    ask(temperature=0.5)(recorder())
    error = missed(ask(temperature=1), ScriptedClient(cache_mode="replay"))
    assert isinstance(error.miss, Miss)
    assert error.miss is error.miss
    assert str(error).startswith(str(error.miss))
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is llmcall.CacheMissError
    assert (copied.miss, str(copied)) == (error.miss, str(error))


@pytest.mark.ci
@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("llmcall.LLMCall(user='Bread?', output_type=bool, client=client)()", "is not recorded"),
        ("llmcall.LLMCall(user='Bread?', client=client)(name='Ann')", "the variable 'name'"),
        ("client.send_message('Bread?', modle='m')", "unknown parameter 'modle'"),
    ],
)
def test_a_notebook_shows_the_users_frames_alone(call: str, words: str) -> None:
    """Of an error that llmcall raises in IPython, and of one about an argument."""
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    shell = interactive.InteractiveShell.instance()
    shell.run_line_magic("colors", "nocolor")
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.ExitStack() as at_end:
        at_end.callback(interactive.InteractiveShell.clear_instance)
        shell.run_cell(
            "import llmcall\n"
            "from llmcall.testing import ScriptedClient\n"
            "client = ScriptedClient(['yes'], cache_mode='replay')\n"
            f"{call}"
        )
    text = shown.getvalue()
    assert f"----> 4 {call}" in text and words in text
    assert "File " not in text


def test_a_miss_says_that_its_cassette_does_not_exist_or_is_incomplete() -> None:
    """An exception ended the recording, so the answer may have been lost."""
    message = flat(missed(QUESTION, tape="none.jsonl"))
    assert "the cassette none.jsonl, which does not exist: 0 records" in message
    assert "no chat request is recorded there" in message
    with pytest.raises(ZeroDivisionError), llmcall.cassette("part.jsonl"):
        ask()(recorder())
        raise ZeroDivisionError
    message = flat(missed("Another?", tape="part.jsonl"))
    assert "the cassette part.jsonl, whose recording is incomplete: 1 record" in message
    assert "cause the recording is incomplete" in message


def test_a_miss_is_explained_after_its_cassette_closed() -> None:
    """The explanation is of the cassette as it was, even if it is gone."""
    with llmcall.cassette("run.jsonl"):
        ask(temperature=0.5)(recorder())
    error = missed(ask(temperature=1), tape="run.jsonl")
    Path("run.jsonl").unlink()
    assert "recorded 0.5, requested 1" in str(error)
    assert "the cassette run.jsonl: 1 record" in str(error)


def test_a_miss_without_the_cache_says_how_to_record() -> None:
    """``cache=False`` keeps the cache out."""
    ask()(recorder())
    message = flat(missed(ask(cache=False), ScriptedClient(cache_mode="replay")))
    assert "cache=False bypasses the disk cache, and no cassette is open" in message
    assert "without cache=False" in message


REPLAY_MODE = "replay mode, which never calls, is set by"


def test_a_miss_names_the_variable_that_set_replay_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says to which value it must be changed."""
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    llmcall.reset()
    message = flat(missed(QUESTION, llmcall.OpenAIClient(api_key="none")))
    assert f"LLMCALL_CACHE_MODE=auto; {REPLAY_MODE} environment variable LLMCALL_CACHE" in message


@pytest.mark.parametrize(
    ("mode", "says"), [("none", "no calls"), ("once", "no calls after the recording")]
)
def test_a_miss_says_why_the_mode_of_its_cassette_refuses_it(mode: str, says: str) -> None:
    """The mode ``once`` made the recording, by calls."""
    with llmcall.cassette("run.jsonl"):
        ask("Another question?")(recorder())
    with pytest.raises(llmcall.CacheMissError) as miss, llmcall.cassette("run.jsonl", mode=mode):
        ask(QUESTION)(recorder())
    assert f"(mode '{mode}' allows {says})" in flat(miss.value)


def test_a_miss_names_the_variable_that_set_a_cassettes_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message says to which value it must be changed."""
    with llmcall.cassette("run.jsonl"), llmcall.configured(cache_mode="auto"):
        ask("Another question?")(recorder())
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", "run.jsonl")
    monkeypatch.setenv("LLMCALL_CASSETTE_MODE", "none")
    llmcall.reset()
    assert "LLMCALL_CASSETTE_MODE=update\n" in str(missed(QUESTION))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"cache_namespace": "new"}, "NAMESPACE is different here (configured())"),
        ({"aliases": {"gpt-4o": "gpt-6"}}, "gpt-4o is now an alias of gpt-6"),
    ],
)
def test_a_miss_over_a_namespace_or_an_alias_names_it(setting: Any, words: str) -> None:
    """The same request is recorded under another namespace, or the name that is now an alias."""
    ask(temperature=0.5, model="gpt-4o")(recorder())
    with llmcall.configured(**setting):
        assert words in flat(explained(temperature=0.5, model="gpt-4o"))


def test_a_miss_over_a_setting_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that a variable sets is shown with the variable."""
    ask(temperature=0.5)(recorder())
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.9")
    llmcall.reset()
    assert explained().causes == (
        "the setting TEMPERATURE is 0.9: environment variable LLMCALL_TEMPERATURE",
    )


def test_a_miss_names_a_missing_setting_only_if_nothing_else_differs() -> None:
    """With it, a changed prompt would still miss."""
    ask(temperature=0.5)(recorder())
    (cause,) = explained().causes
    assert "no setting sets temperature here" in cause
    assert "TEMPERATURE = 0.5" in cause
    assert explained("Would you buy two?").causes == ()


LOOK_ALIKE = [
    ("Caf\u00e9?", "Cafe\u0301?", "(NFC)", "(NFD)"),
    ("10\u00a0coins?", "10 coins?", "(NO-BREAK SPACE)", "(SPACE)"),
    ("18-24?", "18\u201124?", "(HYPHEN-MINUS)", "(NON-BREAKING HYPHEN)"),
]


@pytest.mark.parametrize(("recorded", "asked", "before", "after"), LOOK_ALIKE)
def test_a_miss_names_what_tells_texts_apart_that_look_equal(
    recorded: str, asked: str, before: str, after: str
) -> None:
    """A changed editor or spreadsheet writes other characters."""
    ask(recorded)(recorder())
    message = str(explained(asked))
    assert message.index(before) < message.index(after)


NORMALIZED = [
    ("It is 12:00.", "It is 13:05.", "times"),
    ("At 0x7f3a12", "At 0x7f3a99", "addresses"),
    (f"12:00 {uuid.UUID(int=1)}", f"13:00 {uuid.UUID(int=2)}", "times, uuids"),
]


@pytest.mark.parametrize(("recorded", "asked", "names"), NORMALIZED)
def test_a_miss_over_a_time_names_the_normalizer(recorded: str, asked: str, names: str) -> None:
    """If only a time, a UUID or an address differs, the message has the line to write."""
    with llmcall.cassette("run.jsonl"):
        ask(f"{recorded} {QUESTION}")(recorder())
    message = missed(f"{asked} {QUESTION}", tape="run.jsonl")
    lines = names.replace(", ", "\n" + " " * 17)  # an entry of config.ini may have several lines
    assert f"NORMALIZE = {lines}\n" in str(message)
    assert "Record the run again with it" in flat(message)
    assert "mode='" not in str(message)


HEARD = [{"role": "user", "content": f"{name} says hello."} for name in ("Lisa", "Bart", "Emma")]


IN_ANOTHER_ORDER = {
    "messages": (HEARD, HEARD[::-1]),
    "lines": ("You heard:\nLisa: yes\nBart: no", "You heard:\nBart: no\nLisa: yes"),
    "numbered lines": ("Posts:\n1. Lisa: yes\n2. Bart: no", "Posts:\n1. Bart: no\n2. Lisa: yes"),
    "lines after words": ("You heard: Lisa: yes\nBart: no", "You heard: Bart: no\nLisa: yes"),
    "commas": ("Lisa, Bart, Emma", "Emma, Lisa, Bart"),
    "semicolons": ("Lisa, 3; Bart, 5", "Bart, 5; Lisa, 3"),
    "within a sentence": (
        "Hello! You know Lisa Ray, Lisa Fay, Emma today. Who is nice?",
        "Hello! You know Lisa Fay, Emma, Lisa Ray today. Who is nice?",
    ),
    "two sentences": (
        "You know Lisa, Bart. You like tea, milk.",
        "You know Bart, Lisa. You like milk, tea.",
    ),
    "a set": ("Your tags: {'red', 'blue', 'green'}.", "Your tags: {'green', 'red', 'blue'}."),
    "JSON": ('[{"name": "Lisa"}, {"name": "Bart"}]', '[{"name": "Bart"}, {"name": "Lisa"}]'),
    "sentences": ("Lisa says yes. Bart says no.", "Bart says no. Lisa says yes."),
    "content parts": (
        [{"role": "user", "content": [{"type": "text", "text": text} for text in ("One", "Two")]}],
        [{"role": "user", "content": [{"type": "text", "text": text} for text in ("Two", "One")]}],
    ),
}
# Not the same parts in another order: what belongs together is swapped, or only blanks differ.
SWAPPED = {
    "a blank at the end": ("Bread?", "Bread? "),
    "the ends of lines": ("Bread?\nCake?", "Bread?\r\nCake?"),
    "words": ("Lisa gives Bart an apple, and leaves", "Bart gives Lisa an apple, and leaves"),
    "lines": ("Lisa, 3\nBart, 5", "Lisa, 5\nBart, 3"),
    "pieces": ("Lisa, 3; Bart, 5", "Lisa, 5; Bart, 3"),
    "names": ("Lisa: 3, Bart: 5", "Lisa: 5, Bart: 3"),
}


@pytest.mark.parametrize(("recorded", "asked"), IN_ANOTHER_ORDER.values(), ids=IN_ANOTHER_ORDER)
def test_a_miss_over_the_same_parts_in_another_order_says_so(recorded: Any, asked: Any) -> None:
    """Messages, parts of their contents, lines, sentences, and pieces between commas or semicolons."""
    ask(recorded)(recorder())
    assert "the same parts are recorded in another order" in flat(explained(asked))


@pytest.mark.parametrize(("recorded", "asked"), SWAPPED.values(), ids=SWAPPED)
def test_a_miss_over_swapped_words_or_blanks_is_no_other_order(recorded: str, asked: str) -> None:
    """A program that swaps what belongs together, or adds a blank, has changed."""
    ask(recorded)(recorder())
    assert "another order" not in flat(explained(asked))


@pytest.mark.parametrize("field", ["tools", "stop"])
def test_a_miss_over_another_order_of_a_parameters_list_says_so(field: str) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("look", "talk")]
    items: list[Any] = tools if field == "tools" else ["\n", "END"]
    client = recorder()
    client.send_message(QUESTION, **{field: items})
    request = client.build_request(QUESTION, **{field: items[::-1]})
    assert "the same parts are recorded in another order" in flat(client.cache.explain(request))


def test_a_miss_over_the_order_alone_advises_a_fixed_order() -> None:
    """Asking again would pay for this order, and miss again; so no mode is offered that does it."""
    with llmcall.cassette("heard.jsonl"), llmcall.scope("ned"):
        ask(HEARD)(recorder())
    with llmcall.scope("ned"):
        message = flat(missed(ask(HEARD[::-1]), tape="heard.jsonl"))
    assert "it depends on which of them arrived first, or on a set, whose order" in message
    assert "'llmcall run --seed N' (or PYTHONHASHSEED=N)" in message
    assert "add them to the prompt in a fixed order" in message
    assert "mode='" not in message


DAYS = [f"You are in a town on day {day}" for day in range(1, 6)]
RAIN = f"{DAYS[3]} and it rains"


def missed_of(
    days: list[str], scope: str | None = "town", recorded_in: str | None = "town"
) -> Miss:
    """Return the first miss of a run of days in one scope, of which the cassette has five."""

    def run(days: list[str], scope: str | None) -> Run:
        def asks(client: ScriptedClient) -> None:
            with llmcall.scope(scope):
                for day in days:
                    ask(day)(client)

        return asks

    with llmcall.cassette("days.jsonl"):
        run(DAYS, recorded_in)(recorder())
    miss: Miss = missed(run(days, scope), tape="days.jsonl").miss
    return miss


@pytest.mark.parametrize(
    ("days", "nearest"),
    [
        pytest.param([*DAYS[:3], RAIN], DAYS[3], id="the changed day"),
        pytest.param([*DAYS[:3], f"{DAYS[2]} again"], DAYS[3], id="a used one"),
        pytest.param([DAYS[4], DAYS[0], RAIN], DAYS[3], id="another order"),
        pytest.param([*DAYS[:3], DAYS[4], "Good night!"], DAYS[3], id="the only one left"),
    ],
)
@pytest.mark.parametrize("scope", ["town", None])
def test_the_nearest_record_is_one_that_the_run_has_not_used(
    days: list[str], nearest: str, scope: str | None
) -> None:
    """The others are what the program still asks."""
    miss = missed_of(days, scope, scope)
    assert miss.nearest is not None
    assert miss.nearest.request["messages"][-1]["content"] == nearest
    assert miss.causes == ()


@pytest.mark.parametrize(
    ("scope", "place"), [("town", "in the scope 'town'"), (None, "outside any scope")]
)
def test_a_miss_says_that_the_run_has_used_all_records_of_its_scope(
    scope: str | None, place: str
) -> None:
    """The nearest is one of them then."""
    miss = missed_of([*DAYS, RAIN], scope, scope)
    assert miss.nearest is not None
    assert miss.nearest.request["messages"][-1]["content"] == DAYS[3]
    assert miss.causes == (
        f"this run has used every chat record {place}, including the nearest: this call is one more",
    )


def test_a_used_record_of_another_scope_may_be_nearest() -> None:
    """Where nothing is recorded in the scope, nothing there can be unused."""
    miss = missed_of([DAYS[0]], scope="village")
    assert miss.nearest is not None
    assert miss.nearest.scope == "town"
    assert not any("used" in cause for cause in miss.causes)


def test_a_functions_miss_is_explained_by_its_arguments() -> None:
    """The message has the call, and each argument that differs."""

    @llmcall.recorded(name="__main__.price")
    def price(item: str, day: int) -> int:
        return len(item) * day

    price("bread", 1)
    with llmcall.configured(cache_mode="replay"), pytest.raises(llmcall.CacheMissError) as caught:
        price("bread", 2)
    message = flat(caught.value)
    assert "function request to __main__.price is not recorded" in message
    assert "asked __main__.price(item='bread', day=2)" in message
    assert "arguments.day: recorded 1, requested 2" in message


def test_an_embeddings_miss_is_explained_word_by_word() -> None:
    """The message shows which words differ, and that a scope does not matter."""
    embedder = ScriptedClient([[0.5]], cache_mode="auto")
    embedder.get_embedding("bread and milk", "embedder")
    with (
        pytest.raises(llmcall.CacheMissError, match=r"\[-milk-\]") as caught,
        llmcall.scope("trial"),
    ):
        ScriptedClient(cache_mode="replay").get_embedding("bread and eggs", "embedder")
    assert "scope shared by all scopes" in flat(caught.value)


def test_a_miss_masks_credentials() -> None:
    """Texts that look like a key are masked in every message and repr."""
    ask(f"Use {KEY}. {QUESTION}")(recorder())
    miss = explained(f"Use {KEY.lower()}1. {QUESTION} Now?")
    shown = (
        f"{miss} {miss!r} {miss.differences!r} {miss.differences[0]} {miss.causes} {miss.opening}"
    )
    assert "*****" in shown
    assert KEY[8:20].lower() not in shown.lower()


def test_a_miss_escapes_control_and_invisible_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those of prompts, models and scopes are shown as escapes, also in the log."""
    model, scope = "m\x1b[2Jodel", "s\x1b[1m"
    ask("Say \x1b[31mred\nnow", scope)(recorder(model=model))
    replay = ScriptedClient(cache_mode="replay", model=model)
    message = str(missed(ask("Say \x1b[32mred\n\u200bnow", scope), replay))
    assert "\x1b" not in message + caplog.text
    assert "\u200b" not in message
    for escaped in ("\\x1b[32m", "\\u200b", "\\n", "m\\x1b[2Jodel", "s\\x1b[1m"):
        assert escaped in message


@llmcall.recorded(name="market.price")
def price_of(item: str) -> int:
    """Answer as a market does, which no test may ask."""
    raise NotImplementedError


@pytest.mark.parametrize("kind", ["chat", "function"])
def test_a_later_miss_names_the_first(kind: str) -> None:
    """The program may have caught the first miss of the process, which led to the others."""
    client = ScriptedClient(cache_mode="replay")
    ask_for = client.send_message if kind == "chat" else price_of
    with llmcall.configured(cache_mode="replay"):
        for question in ("the first one?", "another?"):
            with pytest.raises(llmcall.CacheMissError) as caught:
                ask_for(question)
    assert "first miss of this process" in str(caught.value)


TWO_CAUSES = """
import contextvars
def swallowed(ask):
    try:
        ask("Buy bread?")
    except (llmcall.CacheMissError, llmcall.ScopeError):
        pass
client = ScriptedClient(lambda messages: "yes", cache_mode="replay")
with llmcall.scope("world"):
    swallowed(client.send_message)
    for _ in range(2):
        ask = contextvars.Context().run
        thread = threading.Thread(target=ask, args=[swallowed, client.send_message])
        thread.start()
        thread.join()
"""


def test_swallowed_misses_and_scope_errors_are_counted_apart() -> None:
    """Each cause has its own count; the errors themselves name the remedies."""
    with start(TWO_CAUSES) as program:
        complaints = program.communicate(timeout=LONGEST)[1]
    missed, unscoped = complaints.splitlines()[-2:]
    if "ScopeError" in missed:
        missed, unscoped = unscoped, missed
    assert missed.startswith("1 call had no recorded answer and raised CacheMissError")
    assert unscoped.startswith("2 calls raised ScopeError")
    for warning in (missed, unscoped):
        assert "). Fix the cause and rerun. The first: " in warning


def as_system_names(loved: str) -> Run:
    """Return a run that asks in the scope that ``actor="system"`` gives a persona."""
    system = f"You are Ada. Ada loves {loved}."
    digest = hashlib.sha256(system.encode()).hexdigest()
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "Bread?"}]
    return ask(messages, f"You are Ada.-{digest[:8]}")


def test_a_miss_over_another_order_of_what_names_the_actor_says_so() -> None:
    """No mode is offered that would pay for this order."""
    with llmcall.cassette("ada.jsonl"):
        as_system_names("bread, milk")(recorder())
    found = flat(missed(as_system_names("milk, bread"), tape="ada.jsonl"))
    assert "the same parts are recorded in another order" in found
    assert "add them to the prompt in a fixed order" in found


def test_a_miss_asks_first_whether_the_cassette_is_another_programs() -> None:
    """If it answered none of the run's requests; one that it did answer shows whose it is."""
    with llmcall.cassette("a.jsonl"):
        ask("Milk?")(recorder())
    report = str(missed("What do pears cost?", tape="a.jsonl").miss)
    assert 0 < report.index("nothing that this run requested so far") < report.index("to record")

    def asks(client: ScriptedClient) -> None:
        ask("Milk?")(client)
        ask("What do pears cost?")(client)

    assert "nothing that this run requested" not in str(missed(asks, tape="a.jsonl").miss)


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [("It is 10:15:00. Milk?", "It is 10:16:30. Milk?"), ("1. milk\n2. rye", "1. rye\n2. milk")],
    ids=["time", "order"],
)
def test_a_miss_over_a_time_or_an_order_is_of_the_same_program(recorded: str, asked: str) -> None:
    with llmcall.cassette("a.jsonl"):
        ask(recorded)(recorder())
    assert "another program" not in str(missed(asked, tape="a.jsonl").miss)
