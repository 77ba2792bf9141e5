"""LLMCall and @llm: templates in, a typed value out, asked again where the answer does not fit; and
tables of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pickle
import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas
import pydantic
import pytest
from clients import Responding, numbered
from commands import done
from servers import completion
from typing_extensions import TypedDict

import llmcall
from llmcall import LLMCall, OutputError, llm
from llmcall.testing import ScriptedClient

if TYPE_CHECKING:
    from decimal import Decimal

USER = "Would you buy {{ product }} for {{ price }} coins?"
BREAD: dict[str, Any] = {"product": "bread", "price": 3}
REFUSAL = {"role": "assistant", "content": None, "refusal": "I do not talk about bread."}
PEOPLE: list[dict[str, Any]] = [{"name": "Lisa", "age": 8}, {"name": "Bart", "age": 10}]
COLUMNS = [
    "repeat",
    "value",
    "error",
    "tries",
    "unread",
    "refusal",
    "served",
    "finish_reason",
    "cost",
    "cache_key",
]


def asked(client: ScriptedClient, request: int = -1) -> list[tuple[str, Any]]:
    """Return role and content of the messages of a request."""
    return [(message["role"], message["content"]) for message in client.requests[request].messages]


@pytest.mark.parametrize(
    ("names", "texts", "expected"),
    [
        (("system.md", "user"), {}, [("system", "You are Lisa."), ("user", "Who am I?")]),
        (
            (None, "user"),
            {"system": "Hello {{ name }}"},
            [("system", "Hello Lisa"), ("user", "Who am I?")],
        ),
        (("system",), {"user": "Hello"}, [("system", "You are Lisa."), ("user", "Hello")]),
        ((), {"system": "Hello"}, [("system", "Hello")]),
    ],
)
def test_a_template_is_a_file_or_a_text(
    names: tuple[Any, ...], texts: dict[str, str], expected: Any
) -> None:
    """A file lies under [Templates] PATH and is named with or without its suffix."""
    Path("templates").mkdir()
    Path("templates/system.md").write_text("    You are {{ name }}.\n")
    Path("templates/user.txt").write_text("Who am I?")
    client = ScriptedClient(["Nobody."])
    assert LLMCall(*names, **texts, client=client).map([{"name": "Lisa"}]) == ["Nobody."]
    assert asked(client) == expected


class Deal(pydantic.BaseModel):
    """A pydantic model."""

    item: str
    price: float = pydantic.Field(gt=0)


# An answer that does not fit


def test_an_answer_that_does_not_fit_is_asked_again() -> None:
    """The value is the first answer that fits; the result has all messages. A second run takes each try from the
    cache, an asynchronous one too.
    """
    tries = ["Perhaps.", "Who knows?", "Yes."]
    client = ScriptedClient(tries, cache_mode="auto", model="gpt-3.5-turbo")
    answer = LLMCall(user=USER, output_type=bool, client=client).run(**BREAD)
    assert answer.value is True
    assert [message["role"] for message in answer.messages] == ["user", "assistant"] * 3
    again = LLMCall(user=USER, output_type=bool, client=client)
    assert again(**BREAD) is asyncio.run(again.acall(**BREAD)) is True
    assert len(client.requests) == len(client.cache) == 3


@pytest.mark.parametrize(
    ("settings", "params", "has_schema"),
    [
        ({"model": "gpt-4o-mini"}, {}, True),
        ({"model": "gpt-4o-mini"}, {"model": "old"}, False),
        ({"model": "my-model"}, {}, False),
        ({"model": "my-model", "models": {"my-*": {"structured_output": "yes"}}}, {}, True),
        ({"model": "gpt-4o-mini"}, {"response_format": {"type": "json_object"}}, False),
        ({"model": "gpt-4o-mini"}, {"response_format": None}, True),
    ],
)
def test_a_schema_is_sent_to_models_that_support_it(
    settings: dict[str, Any], params: dict[str, Any], has_schema: bool
) -> None:
    """[Model …] decides for the call's model, after aliases; others get the instruction as text."""
    client = ScriptedClient(["7"], aliases={"old": "gpt-3.5-turbo"}, **settings)
    assert LLMCall(system="How many?", output_type=int, client=client, **params).call() == 7
    assert ("json_schema" in str(client.requests[0].body.get("response_format"))) is has_schema
    assert ("Answer with only a whole number." in asked(client)[0][1]) is not has_schema


@pytest.mark.parametrize("mode", ["json_object", "json_schema"])
def test_a_given_response_format_leaves_the_reading_to_the_call(mode: str) -> None:
    """An answer that does not fit is recorded and asked again with a correction."""
    schema = {"name": "x", "strict": True, "schema": {"type": "object"}}
    response_format = {"type": mode, **({"json_schema": schema} if mode == "json_schema" else {})}
    client = ScriptedClient(["Perhaps.", '{"a": 1}'], cache_mode="auto", retry_max_attempts=1)
    call = LLMCall(user="What?", output_type=dict, client=client, response_format=response_format)
    assert call.call() == {"a": 1}
    assert len(client.requests) == len(client.cache) == 2
    assert client.requests[0].body["response_format"] == response_format


# The error of an answer that never fits


def test_an_output_error_shows_answer_expectation_scope_item_and_tries() -> None:
    """Each stands in a line of its own; the item has only what the template uses."""
    client = ScriptedClient(lambda _: "Perhaps.", cache_mode="auto", model="gpt-3.5-turbo")
    call = LLMCall(user="Would {{ name }}?", output_type=bool, client=client)
    with llmcall.scope("trial"), pytest.raises(OutputError) as failed:
        call(name="Lisa", _unused="x")
    text = str(failed.value)
    first = next(iter(client.cache.records())).cache_key[:12]
    assert text.split("\n  ") == [
        "the answer is not in the form that was asked for",
        "answer: 'Perhaps.'",
        "expected: Answer with yes or no.",
        "structured output was not used: llmcall does not know that the model 'gpt-3.5-turbo' "
        "supports it. If its server does, "
        "set STRUCTURED_OUTPUT = yes in [Model gpt-3.5-turbo] of config.ini",
        "scope: trial#0",
        "item: name='Lisa'",
        "after 3 tries",
        f"to ask again: llmcall cassette forget FILE {first}, or llmcall cache delete {first}",
    ]


MOODS = Literal["good", "bad", "very good"]


OF_THEM = "exactly one of the options above."
LISTED = "exactly one of: good, bad, very good."


@pytest.mark.parametrize(
    ("texts", "instruction"),
    [
        ({"user": "Is it bad, very good or good?"}, OF_THEM),
        ({"user": "Bread?", "system": "Answer with Bad, VERY\nGOOD, or\n\ngood."}, OF_THEM),
        ({"user": "Bread?\n{{ listed }}"}, OF_THEM),
        ({"user": "Is it bad or very good?"}, LISTED),
        ({"user": "Is it bad, very good, or goods?"}, LISTED),
        ({"user": "A good-natured bad?"}, LISTED),
    ],
)
def test_options_are_listed_unless_the_prompt_holds_them(
    texts: dict[str, str], instruction: str
) -> None:
    """The model reads them once, in the order that the prompt gives them. One that is missing, or only a part of
    other words, makes the list necessary.
    """
    client = ScriptedClient(["good"], model="my-model")
    row = {"listed": "- bad\n- good\n- very good"}
    LLMCall(output_type=MOODS, client=client, **texts).map([row])
    text = client.requests[0].messages[-1]["content"]
    assert text.endswith(f"\n\nAnswer with {instruction}")


@pytest.mark.parametrize(
    ("output_type", "user", "instruction"),
    [
        (list[MOODS], "Which of bad, very good or good?", "only a JSON array; each element is one"),
        (bool, "Would you buy it? Yes or no?", "exactly one"),
        (bool, "Would you buy it?", "yes or no."),
        (bool, "Would you buy it if there is no rye? Yes?", "exactly one"),
        (bool, "Do you know it? Not yet? Yes?", "yes or no."),
    ],
)
def test_options_of_a_list_and_yes_and_no_are_listed_unless_the_prompt_holds_them(
    output_type: Any, user: str, instruction: str
) -> None:
    """Neither when it is asked again."""
    client = ScriptedClient(["Perhaps.", '{"value": true}', "[]"], model="my-model")
    LLMCall(user=user, output_type=output_type, client=client)()
    first, second = (request.messages[-1]["content"] for request in client.requests[:2])
    sentence = f"Answer with {instruction}" + (
        "" if instruction.endswith(".") else " of the options above."
    )
    assert first == f"{user}\n\n{sentence}"
    assert second.endswith(f".\n{sentence}")


# Refusals


@pytest.mark.parametrize("output_type", [str, bool, Deal])
def test_a_refusal_is_recorded(output_type: Any) -> None:
    """The second run raises the same error and asks nothing."""
    client = ScriptedClient([REFUSAL], cache_mode="auto", model="gpt-4o-mini")
    call = LLMCall(user=USER, output_type=output_type, client=client)
    for _ in range(2):
        with pytest.raises(OutputError, match="refused") as raised:
            call(**BREAD)
        assert raised.value.text == REFUSAL["refusal"]
        assert "after 1 try" in str(raised.value)
    assert len(client.requests) == len(client.cache) == 1


def test_a_refusal_in_a_correction_ends_the_asking() -> None:
    """An answer that does not fit is asked again, the refusal of the correction is not."""
    client = ScriptedClient(["Hm.", REFUSAL])
    with pytest.raises(OutputError, match="refused"):
        LLMCall(user=USER, output_type=bool, client=client)(**BREAD)
    assert len(client.requests) == 2


@pytest.mark.parametrize("on_error", ["raise", "return", "none"])
def test_a_map_treats_refusals_as_on_error_says(on_error: str) -> None:
    """It raises by default; each item has its error, or none."""
    call = LLMCall(user="{{ name }}", client=ScriptedClient(lambda _: REFUSAL))
    if on_error == "raise":
        with pytest.raises(OutputError, match="refused"):
            call.map(PEOPLE)
    else:
        found = call.map(PEOPLE, on_error=on_error)
        kind = OutputError if on_error == "return" else type(None)
        assert [type(outcome) for outcome in found] == [kind] * 2


# on_error

FAILURES = (llmcall.InvalidRequestError, OutputError)


def failing(answers: list[Any], **options: Any) -> LLMCall:
    """Return a call that fails."""
    client = ScriptedClient(list(answers))
    return LLMCall(user=USER, output_type=int, client=client, **options)


on_each_failure = pytest.mark.parametrize(
    "answers", [[llmcall.InvalidRequestError("no")], ["Hm."] * 3], ids=["api", "output"]
)


@on_each_failure
@pytest.mark.parametrize("options", [{}, {"on_error": None}])
def test_a_call_raises_whatever_on_error_is_configured(
    answers: list[Any], options: dict[str, Any]
) -> None:
    """A value was promised, so None would be no answer."""
    with llmcall.configured(on_error="none"), pytest.raises(FAILURES):
        failing(answers, **options).call(**BREAD)


@on_each_failure
def test_a_call_with_on_error_returns_none_or_the_error(
    answers: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """None is logged once; the error is the one that would have been raised."""
    assert isinstance(failing(answers, on_error="return").call(**BREAD), FAILURES)
    with caplog.at_level(logging.ERROR, "llmcall"):
        assert failing(answers, on_error="none").call(**BREAD) is None
    assert len(caplog.records) == 1


# The last call


@pytest.fixture
def doubling() -> LLMCall:
    """A call whose answer is the question twice."""
    client = ScriptedClient(lambda messages: messages[0]["content"] * 2)
    return LLMCall(user="{{ x }}", client=client)


def test_messages_and_model_output_are_of_the_last_call(doubling: LLMCall) -> None:
    """Both are None before the first one."""
    assert doubling.messages is None
    assert doubling.model_output is None
    doubling(x=9)
    assert doubling.messages == [
        {"role": "user", "content": "9"},
        {"role": "assistant", "content": "99"},
    ]


def test_each_task_has_the_reply_of_its_own_last_call(doubling: LLMCall) -> None:
    """Tasks that take turns do not see each other's, nor does what is around them."""

    async def ask(x: int) -> Any:
        await doubling.acall(x=x)
        await asyncio.sleep(0)
        return doubling.model_output

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask(x) for x in range(4)))

    assert [reply.content for reply in asyncio.run(ask_all())] == ["00", "11", "22", "33"]
    assert doubling.messages is None
    assert doubling.model_output is None


def test_a_call_that_was_used_can_be_pickled() -> None:
    """It can be sent to another process."""
    llmcall.register_client("openai", ScriptedClient(["yes", "no"]))
    call = LLMCall(user="{{ x }}?", output_type=bool)
    assert call(x=1) is True
    assert pickle.loads(pickle.dumps(call))(x=1) is False


# Functions


class Person:
    """Somebody who is asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    @llm(temperature=0)
    def would_buy(person, product: str, price: int = 3) -> bool:
        """You are {{ person.name }}. Would you buy {{ product }} for {{ price }}?"""
        raise NotImplementedError


@llm
def greeting(name: str) -> str:
    """Greet {{ name }}."""
    raise NotImplementedError


@pytest.fixture
def scripted() -> ScriptedClient:
    """The configured client, which answers yes."""
    client = ScriptedClient(lambda messages: "Yes.", model="gpt-3.5-turbo")
    llmcall.register_client("scripted", client)
    llmcall.force_api_type("scripted")
    return client


def test_a_functions_docstring_is_its_prompt(scripted: ScriptedClient) -> None:
    """It is without the function's indentation, as Python 3.13 compiles docstrings: one key on all
    versions.
    """

    @llm
    def would_buy(product: str, price: Decimal) -> bool:  # a name for type checkers only
        """Would you buy {{ product }}:

            for {{ price }} coins?
        Be honest.
        """
        raise NotImplementedError

    assert would_buy("bread", price=3) is True  # type: ignore[arg-type]
    prompt = "Would you buy bread:\n\n    for 3 coins?\nBe honest.\n\nAnswer with yes or no."
    assert asked(scripted) == [("user", prompt)]


def test_a_function_takes_the_arguments_of_a_call(scripted: ScriptedClient) -> None:
    """A system template and model parameters can stand in the decorator."""

    @llm(system="You are {{ name }}.", temperature=1)
    def would_buy(name: str, product: str) -> bool:
        """Would you buy {{ product }}?"""
        raise NotImplementedError

    assert would_buy("Lisa", "bread") is True
    assert asked(scripted)[0] == ("system", "You are Lisa.")
    assert scripted.requests[-1].hashed["temperature"] == 1


def test_a_function_that_is_run_gives_value_reply_and_messages(scripted: ScriptedClient) -> None:
    """``LLMCall.run`` does the same."""
    answer = greeting.run("Lisa")
    assert answer.value == "Yes."
    assert answer.reply is not None
    assert answer.reply.content == "Yes."
    assert len(answer.messages) == 2


@llm
def sentence(a: str, /, b: str = "B", *c: str, d: str = "D", **e: str) -> str:
    """{{ a }} {{ b }} {{ c | join(' ') }} {{ d }} {{ e.f }}"""
    raise NotImplementedError


def prompts(client: ScriptedClient) -> list[str]:
    """Return the first message of each request."""
    return [request.messages[0]["content"] for request in client.requests]


def test_arguments_go_by_position_by_name_or_by_default(scripted: ScriptedClient) -> None:
    """A template sees all of them, as the function's body would."""
    sentence("1", f="6")
    sentence("1", "2", "3", "4", d="5", f="6")
    assert prompts(scripted) == ["1 B  D 6", "1 2 3 4 5 6"]


def test_a_rows_columns_are_arguments_by_name(scripted: ScriptedClient) -> None:
    """Their order does not matter; an item that is no row is the first argument."""
    sentence.map([{"a": "1", "f": "2"}, {"d": "3", "f": "5", "a": "4"}], workers=1)
    greeting.map(["Maggie", {"name": "Lisa", "age": 8}], workers=1)
    assert prompts(scripted) == ["1 B  D 2", "4 B  3 5", "Greet Maggie.", "Greet Lisa."]


def test_a_method_asks_for_its_object(scripted: ScriptedClient) -> None:
    """It can be called on the object, or on the class with the object as the first argument."""
    assert Person("Lisa").would_buy("bread") is True
    assert Person.would_buy(Person("Tom"), "salt", price=1) is True
    assert [text[:18] for text in prompts(scripted)] == ["You are Lisa. Woul", "You are Tom. Would"]


@pytest.mark.parametrize(
    ("returned", "answer", "value"),
    [
        ("list[Deal]", '[{"item": "a", "price": 1}]', [Deal(item="a", price=1)]),
        (int | None, "null", None),
    ],
    ids=str,
)
def test_the_return_annotation_is_the_output_type(returned: Any, answer: str, value: Any) -> None:
    """It may be a type or its name."""

    def function() -> Any:
        """What now?"""

    function.__annotations__ = {"return": returned}
    assert llm(client=ScriptedClient([answer]))(function)() == value


def test_a_decorated_function_is_pickled_by_its_name() -> None:
    """A method is, too, with its object."""
    assert pickle.loads(pickle.dumps(greeting)) is greeting
    method = pickle.loads(pickle.dumps(Person("Lisa").would_buy))
    assert method.llm_call is Person.would_buy.llm_call


# Tables


def people_as(kind: str) -> Any:
    """Return the people as a list, as a generator, or as a data frame with an index of its own."""
    if kind == "dicts":
        return PEOPLE
    if kind == "generator":
        return iter(PEOPLE)
    return pandas.DataFrame(PEOPLE, index=[7, 7]).astype({"age": "int16"})


@pytest.mark.parametrize("kind", ["dicts", "frame", "generator"])
def test_a_table_has_a_row_for_each_item_and_repeat(kind: str) -> None:
    """The columns of the items stand first; a data frame's index stays. A second table asks nothing, and has the
    same rows, however the items are given.
    """
    client = numbered()
    call = LLMCall(user="{{ name }}", client=client)
    table = call.table(people_as(kind), repeats=2, scope="survey", workers=1)
    assert list(table.columns) == ["name", "age", *COLUMNS]
    assert list(table.index) == ([7] * 4 if kind == "frame" else [0, 1, 2, 3])
    rows = list(zip(table["name"], table["age"], table["repeat"], strict=True))
    assert rows == [("Lisa", 8, 0), ("Lisa", 8, 1), ("Bart", 10, 0), ("Bart", 10, 1)]
    assert table["error"].isna().all()
    again = call.table(PEOPLE, repeats=2, scope="survey").astype(table.dtypes)
    assert len(client.requests) == 4
    pandas.testing.assert_frame_equal(table.reset_index(drop=True), again)


def counting_call(**options: Any) -> LLMCall:
    """Return a call that gets a number for everybody but Bart."""
    client = ScriptedClient(lambda messages: "many" if "Bart" in messages[0]["content"] else "7")
    return LLMCall(user="{{ name }}?", output_type=int, output_retries=0, client=client, **options)


@pytest.mark.parametrize("on_error", ["return", "none"])
def test_a_failed_row_of_a_table_loses_no_other(on_error: str) -> None:
    """Its value is missing and its error is there; a row that was never asked has no key."""
    table = counting_call().table([*PEOPLE, {}], on_error=on_error)
    assert table["value"].isna().tolist() == [False, True, True]
    assert table["error"].isna().tolist() == [True, False, False]
    assert table["error"][1].startswith("OutputError: ")
    assert table["error"][2].startswith("TemplateError: ")
    assert table["cache_key"].isna()[2]


def test_a_table_raises_a_failure_with_the_results_before_it() -> None:
    """That is the default."""
    with pytest.raises(OutputError) as caught:
        counting_call().table(PEOPLE, workers=1)
    assert caught.value.results[0].value == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("on_error", ["raise", "return", "none"])
def test_a_refusal_has_its_row_whatever_on_error_says(
    on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A table has the refusal's text in the row, without a value or an error, replayed too; a line
    counts the refusals.
    """

    def answered(messages: list[Any]) -> Any:
        """Refuse to speak of Bart."""
        return REFUSAL if "Bart" in messages[0]["content"] else "7"

    client = ScriptedClient(answered, cache_mode="auto")
    call = LLMCall(user="{{ name }}?", output_type=int, client=client)
    for _ in range(2):
        table = call.table(PEOPLE, on_error=on_error)
        assert table["refusal"].fillna("").tolist() == ["", REFUSAL["refusal"]]
        assert table["value"].isna().tolist() == [False, True]
        assert table["error"].isna().all()
        assert table["tries"].tolist() == [1, 1]
        assert table["unread"].isna().all()
        assert table["cache_key"].notna().all()
    lines = [line.partition(",")[0] for line in caplog.messages if "refusal" in line]
    assert lines == ["missing values: 1 of 2 answers"] * 2


@pytest.mark.parametrize(
    "parameters, options",
    [({}, {"on_error": "return"}), ({"on_error": "none"}, {}), ({"on_error": "return"}, {})],
)
def test_a_table_has_the_tries_the_first_misfit_and_the_error_of_each_row(
    parameters: dict[str, Any], options: dict[str, Any]
) -> None:
    """Of people who answer at once, late, never, or with an error, whoever says that nothing is raised."""
    answers = {
        "Lisa": ["8"],
        "Bart": ["many", "some", "10"],
        "Homer": ["much", "more", "Duff"],
        "Marge": ["Hm.", llmcall.InvalidRequestError("no")],
        "Maggie": [llmcall.InvalidRequestError("no")],
    }

    def answered(messages: list[Any]) -> Any:
        """Give the next answer about a person."""
        return answers[messages[0]["content"].partition("?")[0]].pop(0)

    client = ScriptedClient(answered, cache_mode="auto")
    call = LLMCall(user="{{ name }}?", output_type=int, client=client, **parameters)
    table = call.table([{"name": name} for name in answers], **options)
    assert table["tries"].tolist() == [1, 3, 3, 2, 1]
    assert table["unread"].fillna("").tolist() == ["", "many", "much", "Hm.", ""]
    assert table["value"].isna().tolist() == [False, False, True, True, True]
    failed = [error.partition(":")[0] for error in table["error"].fillna("")]
    assert failed == ["", "", "OutputError", *["InvalidRequestError"] * 2]
    assert table["cache_key"].isna().tolist() == [False, False, False, True, True]


def test_a_table_names_the_model_that_answered_and_how_the_answer_ended() -> None:
    """served is the name that the server gave, finish_reason what it said."""
    client = Responding(completion("Yes, I w", finish_reason="length"), model="gpt-4o-mini")
    table = LLMCall(user="{{ name }}", client=client).table(PEOPLE[:1])
    assert table["served"].tolist() == ["gpt-4o-mini-2024-07-18"]
    assert table["finish_reason"].tolist() == ["length"]


class Offer(TypedDict):
    """A typed dict."""

    item: str
    price: float


@dataclasses.dataclass
class Bid:
    """A dataclass."""

    item: str
    price: float


@pytest.mark.parametrize("output_type", [Deal, Bid, Offer, Deal | None])
def test_a_table_has_a_column_for_each_field_of_a_value(output_type: Any) -> None:
    """The fields stand in the value's place; a row without a value has none of them."""

    def answered(messages: list[Any]) -> Any:
        """Refuse to speak of Bart."""
        return REFUSAL if "Bart" in messages[0]["content"] else {"item": "salt", "price": 2.5}

    call = LLMCall(user="{{ name }}", output_type=output_type, client=ScriptedClient(answered))
    table = call.table(PEOPLE)
    assert list(table.columns) == ["name", "age", COLUMNS[0], "item", "price", *COLUMNS[2:]]
    assert (table["item"][0], table["price"][0]) == ("salt", 2.5)
    assert table["item"].isna()[1]
    assert table["price"].isna()[1]


def test_the_cost_of_a_row_includes_its_corrections() -> None:
    """It is that of all calls that its value took."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    answers = [completion(text, usage=usage) for text in ("many", "7")]
    client = Responding(*answers, prices={"gpt-4o-mini": (1e6, 1e6)}, model="gpt-4o-mini")
    table = LLMCall(user="How many?", output_type=int, client=client).table([{}])
    assert (table["value"][0], table["cost"][0]) == (7, 4.0)


def test_the_key_in_a_table_is_the_short_one_that_commands_take() -> None:
    """A frame of records has the whole key, of which these are the first digits."""
    client = ScriptedClient(["7"], cache_mode="auto")
    call = LLMCall(user="{{ name }}?", output_type=int, client=client)
    with llmcall.cassette("tape.jsonl") as tape:
        table = call.table([{"name": "Ann"}])
    [key] = table["cache_key"]
    assert re.fullmatch("[0-9a-f]{12}", key)
    assert list(tape.to_frame()["cache_key"].str[:12]) == [key]
    assert "Ann?" in done("cache", "show", key)
    assert done("cache", "delete", key, "--yes").startswith("1 record")


class Size(Enum):
    """A value that no file holds as it is."""

    SMALL = "small"


class Shelf(NamedTuple):
    """A value of fields in an array."""

    size: Size
    books: int


class Room(pydantic.BaseModel):
    """A value of fields."""

    size: Size
    windows: int
    is_warm: bool
    price: Decimal


@pytest.mark.parametrize(
    ("output_type", "answer"),
    [
        (Size, "small"),
        (int, "7"),
        (bool, "yes"),
        (float, "1.5"),
        (str, "Hi"),
        (Shelf, '["small", 2]'),
        (Room, {"size": "small", "windows": 2, "is_warm": True, "price": 1.5}),
    ],
)
@pytest.mark.parametrize("fails", [False, True], ids=["all read", "one failed"])
def test_a_table_saves(output_type: Any, answer: Any, fails: bool, tmp_path: Path) -> None:
    """Also where a row failed: by pandas' own writers, as far as these are installed."""

    def answered(messages: list[Any]) -> Any:
        """Fail for Bart."""
        is_failure = fails and "Bart" in messages[0]["content"]
        return llmcall.InvalidRequestError("no") if is_failure else answer

    client = ScriptedClient(answered)
    call = LLMCall(user="{{ name }}", output_type=output_type, client=client)
    table = call.table(PEOPLE, on_error="return")
    assert table.attrs == {} and len(table) == 2
    with closing(sqlite3.connect(tmp_path / "table.sqlite")) as database:
        table.to_sql("answers", database)
    table.to_stata(tmp_path / "table.dta", version=118)
    table.to_json(tmp_path / "table.json")
    table.to_csv(tmp_path / "table.csv")
    table.to_pickle(tmp_path / "table.pickle")
    if find_spec("pyarrow"):
        table.to_feather(tmp_path / "table.feather")
        table.to_parquet(tmp_path / "table.parquet")
        assert len(pandas.read_parquet(tmp_path / "table.parquet")) == 2
    if find_spec("openpyxl"):
        table.to_excel(tmp_path / "table.xlsx")
    read = pandas.read_stata(tmp_path / "table.dta")
    assert ("InvalidRequestError: no" in read["error"].tolist()) is fails
