"""The explanation of a miss: what it holds, how it is shown, where it looks, and what it never shows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import llmcall
from llmcall.cache.cache import ResponseCache
from llmcall.cli.main import main
from llmcall.explain.differences import differences
from llmcall.explain.passages import masked, passages
from llmcall.explain.report import Miss
from llmcall.testing import ScriptedClient
from llmcall.types import Request

QUESTION = "Would you buy a loaf of bread for 3 coins?"
KEY = "sk-proj-abcdEFGH1234567890abcdEFGH1234567890"
TEXT = st.text(st.sampled_from("abc 12.\n\t'{}é東\u200b"), max_size=60)


def recorder(**settings: Any) -> ScriptedClient:
    """A client that records."""
    return ScriptedClient(lambda _: "Yes.", cache_mode="auto", **settings)


def missed(client: ScriptedClient, question: Any = QUESTION, **arguments: Any) -> llmcall.CacheMissError:
    """The error of a question that is not recorded."""
    with pytest.raises(llmcall.CacheMissError) as caught:
        client.send_message(question, **arguments)
    return caught.value


def explained(question: Any = QUESTION, **arguments: Any) -> Miss:
    """What the cache explains of a request."""
    client = recorder()
    return client.cache.explain(client.build_request(question, **arguments))


def test_a_miss_holds_what_it_says() -> None:
    """The nearest record, what differs from it, where else it is, and why."""
    client = recorder()
    client.send_message(QUESTION, temperature=0.5)
    with llmcall.scope("lisa"):
        client.send_message(QUESTION, temperature=0.5)
    miss = explained(temperature=1)
    nearest, other = client.cache.records()
    assert (miss.kind, miss.name, miss.sample, miss.recorded) == ("chat", "gpt-4o-mini", None, False)
    assert miss.nearest == nearest
    assert [(each.place, each.recorded, each.asked) for each in miss.differences] == [("temperature", 0.5, 1)]
    assert miss.elsewhere == (nearest, other)
    assert miss.causes == ("temperature is 1 here, and 0.5 in the record",)
    assert miss.opening == f"user: {QUESTION}"
    assert str(miss).startswith("this chat request to gpt-4o-mini is not recorded (key ")
    assert f"elsewhere  {other.cache_key[:12]}, gpt-4o-mini, lisa, draw 0" in str(miss)


def test_a_recorded_request() -> None:
    """What is recorded after all is said to be."""
    recorder().send_message(QUESTION)
    miss = explained()
    assert miss.recorded
    assert "is recorded" in str(miss) and "cause" not in str(miss)


def test_the_error_carries_the_miss() -> None:
    """The error's text is the explanation, made when it is first looked at, and survives a pickle."""
    recorder().send_message(QUESTION, temperature=0.5)
    error = missed(ScriptedClient(cache_mode="replay"), temperature=1)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(error.miss, Miss) and error.miss is error.miss
    assert type(again) is llmcall.CacheMissError
    assert str(again) == str(error) and str(error).startswith(str(error.miss))
    assert again.miss == error.miss
    assert "temperature is 1 here" in str(error)


def test_an_error_of_ones_own() -> None:
    """A CacheMissError without an explanation is an error like any other."""
    error = pickle.loads(pickle.dumps(llmcall.CacheMissError("nothing there")))
    assert (str(error), error.miss) == ("nothing there", None)


def test_a_miss_is_explained_after_its_cassette_closed() -> None:
    """What is read outside the block tells of the cassette as it was, its settings included."""
    with llmcall.cassette("run.jsonl"):
        ScriptedClient(["Yes."]).send_message(QUESTION, temperature=0.5)
    with pytest.raises(llmcall.CacheMissError) as caught, llmcall.cassette("run.jsonl", mode="none"):
        ScriptedClient().send_message(QUESTION, temperature=1)
    Path("run.jsonl").unlink()
    assert "temperature is 1 here" in str(caught.value)
    assert "the cassette run.jsonl: 1 record" in str(caught.value)


def test_a_cassette_that_is_not_there() -> None:
    """The mode none without a file says that there is none."""
    with llmcall.cassette("run.jsonl", mode="none"):
        said = str(missed(ScriptedClient()))
    assert "the cassette run.jsonl, which does not exist: 0 records" in said
    assert "no chat request is recorded there at all" in said


def test_the_cache_has_what_the_cassette_lacks() -> None:
    """A cassette keeps the disk cache out; that it has the answer is said."""
    recorder().send_message(QUESTION)
    with llmcall.cassette("run.jsonl"):
        ScriptedClient(["Yes."]).send_message("Another question?")
    with llmcall.cassette("run.jsonl", mode="none"):
        said = " ".join(str(missed(ScriptedClient())).split())
    assert "cache has the answer, but was not asked" in said
    assert "llmcall.cassette('run.jsonl', mode='new') adds what is missing (the mode is 'none')" in said


def test_references_of_a_cassette_are_searched() -> None:
    """Long texts and growing histories stand behind references in the file."""
    story = " ".join(f"word{number}" for number in range(300))
    messages: list[Any] = [{"role": "system", "content": story}]
    with llmcall.cassette("run.jsonl"):
        client = ScriptedClient(lambda _: "Go on.")
        for number in range(6):
            messages.append({"role": "user", "content": f"And {number}?"})
            messages.append(client.send_message(messages, on_error="raise"))
    messages[-2] = {"role": "user", "content": "And then?"}
    with llmcall.cassette("run.jsonl", mode="none"):
        miss = missed(ScriptedClient(), messages[:-1]).miss
    assert miss is not None and miss.nearest is not None
    assert len(miss.nearest.request["messages"]) == len(messages) - 1
    assert [(each.place, each.asked) for each in miss.differences] == [("messages[11].content", "And then?")]


def test_going_past_the_cache() -> None:
    """cache=False in the mode replay is a miss whose cause is cache=False."""
    recorder().send_message(QUESTION)
    said = " ".join(str(missed(ScriptedClient(cache_mode="replay"), cache=False)).split())
    assert "cache=False goes past the disk cache, and no cassette is open" in said
    assert "the answer, but was not asked" in said
    assert "without cache=False" in said


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        (
            "environment",
            "LLMCALL_CACHE_MODE=auto; replay, which never calls, is set by environment variable LLMCALL_CACH",
        ),
        ("file", "replay, which never calls, is set by config.ini"),
        ("argument", "replay, which never calls, is set by the argument cache_mode"),
    ],
)
def test_how_to_record_it(origin: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what set the mode, and how to change it there."""
    arguments = {"cache_mode": "replay"} if origin == "argument" else {}
    if origin == "environment":
        monkeypatch.setenv("LLMCALL_CACHE_MODE", "replay")
    elif origin == "file":
        Path("config.ini").write_text("[Cache]\nMODE = replay\n", encoding="utf-8")
    llmcall.reset()
    client = llmcall.OpenAIClient(api_key="none", **arguments)
    with pytest.raises(llmcall.CacheMissError) as caught:
        client.send_message(QUESTION)
    assert says in " ".join(str(caught.value).split())


def test_a_named_cassette(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cassette that the settings name is recorded by a setting."""
    with llmcall.cassette("run.jsonl"):
        ScriptedClient(["Yes."]).send_message("Another question?")
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", "run.jsonl")
    monkeypatch.setenv("LLMCALL_CASSETTE_MODE", "none")
    llmcall.reset()
    assert "LLMCALL_CASSETTE_MODE=new\n" in str(missed(ScriptedClient()))


@pytest.mark.parametrize("mode", ["once", "new"])
def test_a_cassette_of_the_pytest_plugin(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cassette that is written only when its test passes is recorded by pytest: the command is whole, in one line."""
    if mode == "new":
        with llmcall.cassette("run.jsonl"):
            ScriptedClient(["Yes."]).send_message("Another question?")
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "tests/test_market.py::test_a_very_long_name[of a case] (call)")
    cassette = llmcall.Cassette("run.jsonl", "none", write=False)
    with cassette:
        error = missed(ScriptedClient())
    assert f"pytest --llm-record={mode} 'tests/test_market.py::test_a_very_long_name[of a case]'\n" in str(error)


def test_another_model_has_the_same_question() -> None:
    """A likelier record is the nearest; that another model was asked the same is said beside it."""
    client = recorder()
    client.send_message(QUESTION, model="gpt-4o", temperature=0, max_tokens=9)
    client.send_message(QUESTION.replace("3 coins", "4 coins"))
    miss = explained()
    assert miss.nearest is not None and miss.nearest.request["model"] == "gpt-4o-mini"
    assert [record.request["model"] for record in miss.elsewhere] == ["gpt-4o"]
    assert "elsewhere" in str(miss) and "gpt-4o, outside any scope" in str(miss)


def test_a_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that a setting says is told with where that stands."""
    recorder().send_message(QUESTION, temperature=0.5)
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.9")
    llmcall.reset()
    [cause] = explained().causes
    assert cause.endswith("(the setting TEMPERATURE says so: environment variable LLMCALL_TEMPERATURE)")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cache_namespace": "new"}, 'NAMESPACE is "new" here, and "" in the record'),
        ({"aliases": {"gpt-4o-mini": "gpt-6"}}, "gpt-4o-mini is an alias now: 'llmcall cache rekey' moves"),
    ],
)
def test_a_changed_setting_that_rekey_mends(changes: dict[str, Any], says: str) -> None:
    """A namespace or an alias that came later is told, with the command that moves the records."""
    recorder().send_message(QUESTION)
    llmcall.configure(**changes)
    [cause] = explained().causes
    assert says in cause and "llmcall cache rekey" in cause


def test_an_earlier_answer_differs() -> None:
    """A run that parted earlier is said to have, however its histories differ."""
    history = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good morning."}]
    recorder().send_message([*history, {"role": "user", "content": QUESTION}])
    history[1]["content"] = "What do you want?"
    [cause] = explained([*history, {"role": "user", "content": QUESTION}]).causes
    assert "parted from the recorded one before this call" in cause


def test_a_given_sample_may_hold_the_mark_of_draws() -> None:
    """The scope path ends at the first mark; what stands after it is the sample's."""
    client = ScriptedClient(["Yes."], cache_mode="auto")
    with llmcall.scope("day"):
        client.send_message("Bread?", sample="a#1")
        said = str(client.cache.explain(client.build_request("Bread?", sample="a#2")))
    assert "day, sample 'a#2'" in said and "another name" not in said


def test_a_recorded_function() -> None:
    """A function's call is explained by its arguments."""
    from llmcall.replay.recorded import recorded

    @recorded(name="market.price")
    def price(item: str, day: int) -> int:
        return len(item) * day

    price("bread", 1)
    llmcall.configure(cache_mode="replay")
    with pytest.raises(llmcall.CacheMissError) as caught:
        price("bread", 2)
    said = str(caught.value)
    assert "this function request to market.price is not recorded" in said
    assert "asked      market.price(item='bread', day=2)" in said
    assert "arguments.day is 2 here, and 1 in the record" in said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("market.price", "it moved, or is run as a script and imported; @llmcall.recorded(name='__main__.price')"),
        ("__main__.cost", "the function is __main__.cost here, and __main__.price in the record"),
    ],
)
def test_a_recorded_function_under_another_name(name: str, says: str) -> None:
    """A function of a script that is imported has another name; the message says what finds it again."""
    from llmcall.replay.recorded import recorded

    def price(item: str) -> int:
        return len(item)

    recorded(name="__main__.price")(price)("bread")
    llmcall.configure(cache_mode="replay")
    with pytest.raises(llmcall.CacheMissError) as caught:
        recorded(name=name)(price)("bread")
    assert says in " ".join(str(caught.value).split())


def test_an_embedding() -> None:
    """An embedding's text is compared word by word."""
    client = ScriptedClient([[0.5]], cache_mode="auto")
    client.get_embedding("bread and milk", "embedder")
    with pytest.raises(llmcall.CacheMissError, match=r"'milk'.*'eggs'"):
        ScriptedClient(cache_mode="replay").get_embedding("bread and eggs", "embedder")


def test_a_damaged_cache_is_told() -> None:
    """Where the cache cannot be read, the explanation says so instead of failing."""
    recorder().send_message(QUESTION)
    request = recorder().build_request(QUESTION)
    llmcall.reset()
    Path(".llmcall/cache/cache.db").write_bytes(b"no database" * 1000)
    miss = ResponseCache(".llmcall/cache").explain(request)
    assert miss.nearest is None
    assert len(miss.causes) == 1
    assert "damaged or cannot be read" in str(miss) and "salvage" in str(miss)


def test_a_damaged_record_is_passed_over() -> None:
    """The nearest record that can be read is shown."""
    client = recorder()
    client.send_message(QUESTION)
    client.send_message(QUESTION, temperature=0.5)
    first, second = client.cache.records()
    llmcall.reset()
    import sqlite3

    with sqlite3.connect(".llmcall/cache/cache.db") as connection:
        connection.execute("UPDATE Cache SET value = value || x'00' WHERE key = ?", (first.cache_key,))
    connection.close()
    miss = explained(max_tokens=5)
    assert miss.nearest is not None and miss.nearest.cache_key == second.cache_key


def test_no_secret_is_shown() -> None:
    """What looks like a credential is masked everywhere, in the parts that differ and around them."""
    recorder().send_message(f"Use {KEY}. {QUESTION}")
    miss = explained(f"Use {KEY.lower()}1. {QUESTION} Now?")
    shown = f"{miss} {miss!r} {miss.differences!r} {miss.differences[0]} {miss.causes} {miss.opening}"
    assert "*****" in shown and KEY[8:20] not in shown and KEY[8:20].lower() not in shown
    [cause] = explained(f"Use {KEY[:-4]}zzzz. {QUESTION}").causes
    assert "what looks like a credential is another" in cause


@given(TEXT)
def test_masking_keeps_the_length(text: str) -> None:
    """A masked text has the places of the text."""
    assert len(masked(f"{text} {KEY} {text}")) == len(f"{text} {KEY} {text}")
    assert KEY not in masked(f"{text} {KEY} {text}")


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 120, 300])
def test_the_width_of_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line but the first is wider than the terminal, between 60 and 120 columns."""
    long = " ".join(f"word{number}" for number in range(80))
    recorder().send_message(f"{long} bread {long}", stop=[long[:300]])
    miss = explained(f"{long} milk {long} eggs", stop=[long[:299]])
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = str(miss).splitlines()
    assert max(map(len, lines[1:])) <= min(max(columns, 60), 120)
    assert any("[-bread-]" in line for line in lines) and any("{+milk+}" in line for line in lines)


def test_nothing_reaches_the_terminal_unseen() -> None:
    """Control characters, newlines and invisible characters are written as escapes."""
    recorder().send_message("Say \x1b[31mred\nnow")
    said = str(explained("Say \x1b[32mred\n\u200bnow"))
    assert "\x1b" not in said and "\u200b" not in said
    assert "\\x1b" in said and "\\u200b" in said and "\\n" in said


@given(TEXT, TEXT)
def test_passages_make_one_text_of_the_other(recorded: str, asked: str) -> None:
    """Replacing each passage's piece in the one text gives the other, and equal texts have none."""
    found = passages(recorded, asked)
    made, at = "", 0
    for passage in found:
        made += recorded[at : passage.begin] + asked[passage.asked_begin : passage.asked_end]
        at = passage.end
    assert made + recorded[at:] == asked
    assert bool(found) == (recorded != asked)


def test_passages_of_very_long_texts() -> None:
    """A change in a text of a million characters is found by its line, and texts without any line in common."""
    lines = [f"line {number} of the story\n" for number in range(40_000)]
    changed = [*lines[:20_000], "line of another story\n", *lines[20_001:]]
    [passage] = passages("".join(lines), "".join(changed))
    assert "".join(changed)[passage.asked_begin : passage.asked_end] == "of another"
    one, other = " ".join(map(str, range(30_000))), " ".join(map(str, range(30_000, 0, -1)))
    assert passages(one, other)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["model", "stop", "messages", "seed"]), VALUES, max_size=4), st.data())
def test_differences_are_found(request: dict[str, Any], data: st.DataObject) -> None:
    """A request differs in nothing from itself, and in something from any other."""
    other = data.draw(st.dictionaries(st.sampled_from(["model", "stop", "messages", "seed"]), VALUES, max_size=4))
    assert differences(request, request) == ()
    assert bool(differences(request, other)) == (_meant(request) != _meant(other))
    for each in differences(request, other):
        assert each.lines(80) and str(each)


def _meant(data: Any) -> str:
    """Plain data as JSON, in which a missing field is one that is None."""
    if isinstance(data, dict):
        return json.dumps({name: _meant(item) for name, item in data.items() if item is not None}, sort_keys=True)
    return json.dumps([_meant(item) for item in data] if isinstance(data, list) else data)


MARKS = ("temperature", "top_p", "seed", "frequency_penalty")


@given(number=st.integers(0, 199), parameter=st.sampled_from(MARKS))
def test_the_right_one_of_many(number: int, parameter: str, many: ResponseCache) -> None:
    """Of two hundred alike, the record of the same question is found, whichever parameter was changed."""
    request = ScriptedClient(**{parameter: 1} if parameter != "seed" else {}).build_request(
        _question(number), **({"seed": 1} if parameter == "seed" else {})
    )
    miss = many.explain(request)
    assert miss.nearest is not None
    assert miss.nearest.request["messages"][0]["content"] == _question(number)
    assert [each.place for each in miss.differences] == [parameter]


def _question(number: int) -> str:
    return f"You are person {number}. {'All of them say the same at length. ' * 8} Would you buy {number % 7} loaves?"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> ResponseCache:
    """A cache of two hundred records that differ in a number."""
    cache = ResponseCache(tmp_path_factory.mktemp("many") / "cache")
    client = ScriptedClient(cache_mode="off")
    for number in range(200):
        request: Request = client.build_request(_question(number))
        cache.put(request, {"choices": []})
    return cache


def test_explain_on_the_command_line() -> None:
    """``llmcall cache explain`` takes messages or all arguments, and a scope."""
    with llmcall.scope("trial"), llmcall.scope("lisa"):
        recorder().send_message(QUESTION)
    messages = [{"role": "user", "content": QUESTION}]
    Path("request.json").write_text(json.dumps({"messages": messages, "temperature": 1}), encoding="utf-8")
    run = CliRunner().invoke
    done = run(main, ["cache", "explain", "request.json", "--scope", "trial/lisa"])
    assert done.exit_code == 0 and "temperature is 1 here, and the record has none" in done.output
    done = run(main, ["cache", "explain", "-"], input=json.dumps(messages))
    assert done.exit_code == 0 and "a scope is missing" in " ".join(done.output.split())
    done = run(main, ["cache", "explain", "-", "--scope", "trial/lisa"], input=json.dumps(messages))
    assert done.exit_code == 0 and "is recorded (key" in done.output


@pytest.mark.parametrize("text", ["{", '{"model": "gpt-4o"}', '{"messages": [], "current_messages": []}', "[]", "3"])
def test_explain_refuses_what_is_no_request(text: str) -> None:
    """What is no request is wrong usage."""
    done = CliRunner().invoke(main, ["cache", "explain", "-"], input=text)
    assert done.exit_code == 2 and "Error" in done.output
