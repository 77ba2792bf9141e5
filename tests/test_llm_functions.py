"""LLMCall and @llm: templates in, a typed value out, asked again where the answer does not fit; and
tables of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import logging
import pickle
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest
from pytest_httpserver import HTTPServer
from servers import Answer, Responding, ScriptedServer, client_for, completion
from typing_extensions import TypedDict

import llmcall
from llmcall import LLMCall, OutputError, TemplateError, llm
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
    "cached",
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
def test_files_and_texts(names: tuple[Any, ...], texts: dict[str, str], expected: Any) -> None:
    """Each template is a file under [Templates] PATH, with or without its suffix, or a text."""
    Path("templates").mkdir()
    Path("templates/system.md").write_text("    You are {{ name }}.\n")
    Path("templates/user.txt").write_text("Who am I?")
    client = ScriptedClient(["Nobody."])
    assert LLMCall(*names, **texts, client=client).call(name="Lisa") == "Nobody."
    assert asked(client) == expected


@pytest.mark.parametrize(
    ("names", "options", "error", "words"),
    [
        ((), {}, TypeError, "needs a template"),
        (("system.md",), {"system": "You are."}, TypeError, "given twice"),
        ((), {"user": "Hello", "output_retries": -1}, ValueError, "output_retries"),
        ((), {"user": "Hello", "enable_pydantic_model_return": True}, TypeError, "output_type="),
    ],
)
def test_wrong_construction(names: Any, options: Any, error: type[Exception], words: str) -> None:
    """A call that could never work is refused when it is made; wrong model parameters are, whatever
    on_error says.
    """
    with pytest.raises(error, match=words):
        LLMCall(*names, **options)
    client = ScriptedClient(["Hi."])
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        LLMCall(user="Hello", client=client, temprature=1).call()
    with pytest.raises(TypeError, match="model"):
        LLMCall(user="Hello", client=client, on_error="none", model=5).call()


class Deal(pydantic.BaseModel):
    """Be a pydantic model."""

    item: str
    price: float = pydantic.Field(gt=0)


def test_an_answer_that_does_not_fit_is_asked_again() -> None:
    """The correction holds the answer and says why; each try is recorded, so that a second run
    gives the same.
    """
    client = ScriptedClient(
        ["Perhaps.", "Who knows?", "Yes."], cache_mode="auto", model="gpt-3.5-turbo"
    )
    answer = LLMCall(user=USER, output_type=bool, client=client).run(**BREAD)
    assert answer.value is True
    first, said, correction = asked(client, 1)
    assert first == ("user", "Would you buy bread for 3 coins?\n\nAnswer with yes or no.")
    assert said == ("assistant", "Perhaps.")
    why = "it gives none of the options by itself"
    assert correction == ("user", f"I cannot use that answer: {why}.\nAnswer with yes or no.")
    assert [message["role"] for message in answer.messages] == ["user", "assistant"] * 3
    again = LLMCall(user=USER, output_type=bool, client=client)
    assert again(**BREAD) is asyncio.run(again.acall(**BREAD)) is True
    assert len(client.requests) == len(client.cache) == 3


def test_a_call_that_is_changed() -> None:
    """What is set on a call holds from its next answer on, whether or not the answers have a
    schema.
    """
    client = ScriptedClient(['{"item": "a", "price": 1}', "3", "yes"], model="gpt-4o-mini")
    call = LLMCall(user="Sell!", output_type=Deal, client=client)
    assert call() == Deal(item="a", price=1)
    call.output_type, call.model_params["temperature"] = int, 0.5
    assert call() == 3
    call.output_type = str
    assert call() == "yes"
    assert [request.body.get("temperature") for request in client.requests] == [None, 0.5, 0.5]
    assert ["response_format" in request.body for request in client.requests] == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "params", "has_schema"),
    [
        ({"model": "gpt-4o-mini"}, {}, True),
        ({"model": "gpt-4o-mini"}, {"model": "old"}, False),
        ({"model": "my-model"}, {}, False),
        ({"model": "my-model", "models": {"my-*": {"structured_output": "yes"}}}, {}, True),
        ({"model": "gpt-4o-mini"}, {"response_format": {"type": "json_object"}}, False),
    ],
)
def test_which_models_get_a_schema(
    settings: dict[str, Any], params: dict[str, Any], has_schema: bool
) -> None:
    """The model of the call decides, after aliases, by [Model …]; a response_format of the caller's
    own is sent.
    """
    client = ScriptedClient(["7"], aliases={"old": "gpt-3.5-turbo"}, **settings)
    assert LLMCall(system="How many?", output_type=int, client=client, **params).call() == 7
    assert ("json_schema" in str(client.requests[0].body.get("response_format"))) is has_schema
    assert ("Answer with only a whole number." in asked(client)[0][1]) is not has_schema
    if "response_format" in params:
        assert client.requests[0].body["response_format"] == params["response_format"]


def test_an_output_error_says_all() -> None:
    """It shows the answer, what was expected, scope, item and tries, and how to ask anew; acall
    raises it as well.
    """
    client = ScriptedClient(lambda _: "Perhaps.", cache_mode="auto", model="gpt-3.5-turbo")
    call = LLMCall(user="Would {{ name }}?", output_type=bool, client=client)
    with llmcall.scope("trial"), pytest.raises(OutputError) as failed:
        call(name="Lisa", unused="x")
    text = str(failed.value)
    assert text.partition("; to ask again")[0].split("\n  ") == [
        "it gives none of the options by itself",
        "answer: 'Perhaps.'",
        "expected: Answer with yes or no.",
        "structured output was not used, because the model 'gpt-3.5-turbo' is not known to "
        "support it. If its server does, "
        "switch it on in config.ini: [Model gpt-3.5-turbo] STRUCTURED_OUTPUT = yes",
        "scope: trial#0",
        "item: name='Lisa'",
        "after 3 tries, recorded",
    ]
    assert (failed.value.text, failed.value.expected) == ("Perhaps.", "Answer with yes or no.")
    assert str(pickle.loads(pickle.dumps(failed.value))) == text
    begun = text.partition("llmcall cache delete ")[2].split()
    deleted = client.cache.delete(where=lambda record: record.cache_key.startswith(tuple(begun)))
    assert deleted == 3 == len(begun)
    assert call.model_output is not None and call.model_output.content == "Perhaps."
    with pytest.raises(OutputError, match="after 3 tries"):
        asyncio.run(call.acall(name="Lisa"))


def test_an_output_error_of_a_server_names_structured_output(httpserver: HTTPServer) -> None:
    """It names the model that the server has, and that llmcall does not know."""
    server = ScriptedServer(httpserver, Answer(200, completion("Perhaps.")))
    client = client_for(server.base_url, model="qwen/qwen3:8b")
    with pytest.raises(OutputError) as failed:
        LLMCall(user="Bread?", output_type=bool, client=client)()
    assert "[Model qwen/qwen3:8b] STRUCTURED_OUTPUT = yes" in str(failed.value)
    Path("config.ini").write_text("[Model qwen/qwen3:8b]\nSTRUCTURED_OUTPUT = yes\n")
    client = client_for(server.base_url, model="qwen/qwen3:8b")
    with pytest.raises(OutputError) as failed:
        LLMCall(user="Bread?", output_type=bool, client=client)()
    assert "STRUCTURED_OUTPUT" not in str(failed.value)


@pytest.mark.parametrize(
    ("output_type", "model", "params"),
    [
        (bool, "gpt-4o-mini", {}),
        (dict, "my-model", {}),
        (bool, "my-model", {"response_format": {"type": "json_object"}}),
    ],
)
def test_structured_output_is_not_named_if_it_cannot_help(
    output_type: Any, model: str, params: dict[str, Any]
) -> None:
    """An error names it only if it was not used, and could be: not if the type or the call forbids."""
    client = ScriptedClient(lambda _: "Perhaps.", model=model)
    call = LLMCall(user="Bread?", output_type=output_type, client=client, **params)
    with pytest.raises(OutputError) as failed:
        call()
    assert "STRUCTURED_OUTPUT" not in str(failed.value)


def test_structured_output_is_used_once_it_is_switched_on() -> None:
    """What the error says switches it on."""
    Path("config.ini").write_text("[Model my-model]\nSTRUCTURED_OUTPUT = yes\n", encoding="utf-8")
    client = ScriptedClient(lambda _: '{"value": 7}', model="my-model")
    assert LLMCall(user="How many?", output_type=int, client=client)() == 7
    assert "response_format" in client.requests[0].body


MOODS = Literal["good", "bad", "very good"]


@pytest.mark.parametrize(
    "texts",
    [
        {"user": "Is it bad, very good or good?"},
        {"user": "Bread?", "system": "Answer with Bad, VERY\nGOOD, or\n\ngood."},
        {"user": "Bread?\n{{ listed }}"},
    ],
)
def test_options_that_the_prompt_holds_are_not_listed_again(texts: dict[str, str]) -> None:
    """The model reads them once, in the order that the prompt gives them."""
    client = ScriptedClient(["good"], model="my-model")
    LLMCall(output_type=MOODS, client=client, **texts)(listed="- bad\n- good\n- very good")
    text = client.requests[0].messages[-1]["content"]
    assert text.endswith("\n\nAnswer with exactly one of the options above.")


def test_options_of_a_list_that_the_prompt_holds_are_not_listed_again() -> None:
    """A correction lists them, in the order that the prompt gives them."""
    client = ScriptedClient(["Perhaps.", '["good", "bad"]'], model="my-model")
    user = "Which of bad, very good or good?"
    call = LLMCall(user=user, output_type=list[MOODS], client=client)
    assert call() == ["good", "bad"]
    first, second = (request.messages[-1]["content"] for request in client.requests)
    assert first == (
        f"{user}\n\nAnswer with only a JSON array; each element is one of the options above."
    )
    assert '["bad", "very good", "good"]' in second


class Feeling(pydantic.BaseModel):
    """Hold options in a model's field, in a list and in one that may be missing."""

    now: MOODS
    before: list[MOODS]
    later: MOODS | None = None


@dataclasses.dataclass
class Weather:
    """Hold options in a dataclass's fields, as texts and as numbers."""

    mood: Literal["good", "bad", "very good"]  # pydantic 2.1 does not find MOODS here
    level: Literal[3, 2, 1]


@pytest.mark.parametrize(
    ("output_type", "answer"),
    [
        (Feeling, '{"now": "good", "before": ["bad"], "later": null}'),
        (Weather, '{"mood": "good", "level": 2}'),
    ],
)
def test_options_of_fields_are_listed_in_the_order_of_the_prompt(
    output_type: Any, answer: str
) -> None:
    """A JSON schema lists them, but in the type's order only if the prompt lacks one of them."""
    client = ScriptedClient(lambda _: answer, model="my-model")
    for user in ("Bad, very good or good, from 1, 2 to 3?", "Bad or good?"):
        LLMCall(user=user, output_type=output_type, client=client)()
    held, listed = (request.messages[-1]["content"] for request in client.requests)
    assert '["good", "bad", "very good"]' in listed
    assert '["bad", "very good", "good"]' in held and '["good", "bad"' not in held
    if output_type is Weather:
        assert "[1, 2, 3]" in held and "[3, 2, 1]" in listed


@pytest.mark.parametrize(
    "user", ["Is it bad or very good?", "Is it bad, very good, or goods?", "A good-natured bad?"]
)
def test_options_that_the_prompt_lacks_are_listed(user: str) -> None:
    """One that is missing, or only a part of other words, makes the list necessary."""
    client = ScriptedClient(["good"], model="my-model")
    LLMCall(user=user, output_type=MOODS, client=client)()
    text = client.requests[0].messages[-1]["content"]
    assert text == f"{user}\n\nAnswer with exactly one of: good, bad, very good."


@pytest.mark.parametrize(
    ("user", "is_held"), [("Buy a thing? A) yes B) no", True), ("Buy a or b?", False)]
)
def test_letters_are_options_as_they_are_written(user: str, is_held: bool) -> None:
    """The article "a" is not the option A."""
    client = ScriptedClient(["A"], model="my-model")
    LLMCall(user=user, output_type=Literal["A", "B"], client=client)()
    text = client.requests[0].messages[-1]["content"]
    assert text.endswith("one of the options above.") is is_held


def test_a_correction_lists_the_options_in_the_order_of_the_prompt() -> None:
    """A model that did not keep to them reads them again, but in no other order."""
    client = ScriptedClient(["Perhaps.", "good"], model="my-model")
    call = LLMCall(user="Is it bad, very good or good?", output_type=MOODS, client=client)
    assert call() == "good"
    text = client.requests[1].messages[-1]["content"]
    assert text.endswith("\nAnswer with exactly one of: bad, very good, good.")


def test_an_answer_that_was_cut_names_max_tokens() -> None:
    """The token limit is the cause, and is named; nothing is said of records where none are kept."""

    client = Responding(completion('{"name": "Li', finish_reason="length"), cache_mode="off")
    call = LLMCall(user="Who?", output_type=Deal, output_retries=0, client=client, max_tokens=5)
    with pytest.raises(OutputError, match="raise max_tokens") as failed:
        call()
    assert "after 1 try" in str(failed.value) and "recorded" not in str(failed.value)


@pytest.mark.parametrize("output_type", [str, bool, Deal])
def test_a_refusal_is_not_asked_again(output_type: Any) -> None:
    """It is the answer, whatever the output type: it is stored, raises an error that says so, and
    replays the same.
    """
    client = ScriptedClient([REFUSAL], cache_mode="auto", model="gpt-4o-mini")
    call = LLMCall(user=USER, output_type=output_type, client=client)
    for _ in range(2):
        with pytest.raises(OutputError, match="refused") as raised:
            call(**BREAD)
        assert raised.value.text == REFUSAL["refusal"] and "after 1 try" in str(raised.value)
    assert len(client.requests) == len(client.cache) == 1


def test_a_refusal_in_a_correction_ends_the_asking() -> None:
    """An answer that does not fit is asked again, the refusal of the correction is not."""
    client = ScriptedClient(["Hm.", REFUSAL])
    with pytest.raises(OutputError, match="refused"):
        LLMCall(user=USER, output_type=bool, client=client)(**BREAD)
    assert len(client.requests) == 2


def test_a_refusal_follows_the_on_error_of_a_map() -> None:
    """It is raised by default, and returned or logged if on_error says so."""
    call = LLMCall(user="{{ name }}", client=ScriptedClient(lambda _: REFUSAL))
    with pytest.raises(OutputError, match="refused"):
        call.map(PEOPLE)
    assert [type(each) for each in call.map(PEOPLE, on_error="return")] == [OutputError] * 2
    assert call.map(PEOPLE, on_error="none") == [None, None]


@pytest.mark.parametrize(
    "answers", [[llmcall.InvalidRequestError("no")], ["Hm."] * 3], ids=["api", "output"]
)
def test_on_error(answers: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """A failure raises whatever ON_ERROR is configured; with on_error among the parameters it is
    None, or returned.
    """
    failures = (llmcall.InvalidRequestError, OutputError)
    with llmcall.configured(on_error="none"), pytest.raises(failures):
        LLMCall(user=USER, output_type=int, client=ScriptedClient(answers), on_error=None).call(
            **BREAD
        )
    with caplog.at_level(logging.ERROR, "llmcall"):
        call = LLMCall(user=USER, output_type=int, client=ScriptedClient(answers), on_error="none")
        assert call.call(**BREAD) is None
    assert len(caplog.records) == 1
    call = LLMCall(user=USER, output_type=int, client=ScriptedClient(answers), on_error="return")
    assert isinstance(call.call(**BREAD), failures)


def test_the_last_call() -> None:
    """messages and model_output are of the last call in this context, and not of other tasks' or a
    map's items'.
    """
    call = LLMCall(
        user="{{ x }}", client=ScriptedClient(lambda messages: messages[0]["content"] * 2)
    )

    async def ask(x: int) -> Any:
        await call.acall(x=x)
        await asyncio.sleep(0)
        return call.model_output

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask(x) for x in range(4)))

    assert [reply.content for reply in asyncio.run(ask_all())] == ["00", "11", "22", "33"]
    assert call.messages is None and call.model_output is None
    call(x=9)
    call.map([{"x": 7}])
    assert call.messages == [
        {"role": "user", "content": "9"},
        {"role": "assistant", "content": "99"},
    ]
    with pytest.raises(TemplateError):
        call()


def test_a_call_is_freed_and_pickled() -> None:
    """What a call gave last does not keep it alive; it can be sent to another process, also after
    it was used.
    """
    call = LLMCall(user="{{ x }}?", output_type=bool, client=ScriptedClient(["yes"]))
    call(x=1)
    seen = weakref.ref(call)
    del call
    gc.collect()
    assert seen() is None
    llmcall.register_client("openai", ScriptedClient(["yes", "no"]))
    call = LLMCall(user="{{ x }}?", output_type=bool)
    assert call(x=1) is True and pickle.loads(pickle.dumps(call))(x=1) is False


class Person:
    """Be somebody who is asked."""

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
    """Make the configured client one that answers yes."""
    client = ScriptedClient(lambda messages: "Yes.", model="gpt-3.5-turbo")
    llmcall.register_client("scripted", client)
    llmcall.force_api_type("scripted")
    return client


def test_functions(scripted: ScriptedClient) -> None:
    """The docstring is the prompt, or beside user= only a docstring; the arguments are those of
    LLMCall.

    It is without the function's indentation, as Python 3.13 compiles docstrings: one key on all
    versions.
    """

    @llm(system="You are {{ name }}.", temperature=1)
    def would_buy(name: str, product: str, price: Decimal) -> bool:  # a name for type checkers only
        """Would you buy {{ product }}:

            for {{ price }} coins?
        Be honest.
        """
        raise NotImplementedError

    @llm(user="Greet {{ name }} politely.")
    def polite(name: str):  # type: ignore[no-untyped-def]
        """Greet somebody politely."""

    assert would_buy("Lisa", "bread", price=3) is True  # type: ignore[arg-type]
    told = "Would you buy bread:\n\n    for 3 coins?\nBe honest.\n\nAnswer with yes or no."
    assert asked(scripted) == [("system", "You are Lisa."), ("user", told)]
    assert scripted.requests[-1].asked["temperature"] == 1
    assert polite("Lisa") == greeting("Lisa") == "Yes."
    assert [asked(scripted, -2), asked(scripted)] == [
        [("user", "Greet Lisa politely.")],
        [("user", "Greet Lisa.")],
    ]
    answer = greeting.run("Lisa")
    assert (answer.value, answer.reply and answer.reply.content, len(answer.messages)) == (
        "Yes.",
        "Yes.",
        2,
    )
    assert asyncio.run(greeting.acall(name="Tom")) == "Yes."


def test_arguments(scripted: ScriptedClient) -> None:
    """They go by position, by name or by default, as in any function; a row's by name; a method
    asks for its object.
    """

    @llm
    def sentence(a: str, /, b: str = "B", *c: str, d: str = "D", **e: str) -> str:
        """{{ a }} {{ b }} {{ c | join(' ') }} {{ d }} {{ e.f }}"""
        raise NotImplementedError

    sentence("1", f="6")
    sentence("1", "2", "3", "4", d="5", f="6")
    sentence.map([{"a": "1", "f": "2"}, {"d": "3", "f": "5", "a": "4"}], workers=1)
    # what is no row is the first argument
    greeting.map(["Maggie", {"name": "Lisa", "age": 8}], workers=1)
    texts = [request.messages[0]["content"] for request in scripted.requests]
    assert texts == [
        "1 B  D 6",
        "1 2 3 4 5 6",
        "1 B  D 2",
        "4 B  3 5",
        "Greet Maggie.",
        "Greet Lisa.",
    ]
    assert (
        Person("Lisa").would_buy("bread")
        is Person.would_buy(Person("Tom"), "salt", price=1)
        is True
    )
    assert [asked(scripted, index)[0][1][:18] for index in (-2, -1)] == [
        "You are Lisa. Woul",
        "You are Tom. Would",
    ]


@pytest.mark.parametrize(
    ("returned", "answer", "value"),
    [
        ("list[Deal]", '[{"item": "a", "price": 1}]', [Deal(item="a", price=1)]),
        (int | None, "null", None),
    ],
    ids=str,
)
def test_return_types(returned: Any, answer: str, value: Any) -> None:
    """The return annotation is the output type, as a type or as its name."""

    def function() -> Any:
        """What now?"""

    function.__annotations__ = {"return": returned}
    assert llm(client=ScriptedClient([answer]))(function)() == value


def test_a_function_looks_like_itself() -> None:
    """Name, docstring, module and signature are the function's; it is pickled by its name."""
    assert (greeting.__name__, greeting.__doc__, greeting.__module__) == (
        "greeting",
        "Greet {{ name }}.",
        __name__,
    )
    assert str(inspect.signature(greeting)) == "(name: 'str') -> 'str'"
    assert repr(greeting) == "<llm function greeting(name: 'str') -> 'str'>"
    assert (
        repr(LLMCall(user="Would you?", output_type=bool))
        == "LLMCall(user='Would you?', output_type=bool)"
    )
    assert len(repr(LLMCall("system.md", user="long " * 1000, output_type=list[int]))) < 150
    assert pickle.loads(pickle.dumps(greeting)) is greeting
    assert (
        pickle.loads(pickle.dumps(Person("Lisa").would_buy)).llm_call is Person.would_buy.llm_call
    )


def no_docstring() -> str:
    raise NotImplementedError


async def asynchronous() -> str:
    """Hello?"""
    raise NotImplementedError


def takes_self(self: Any) -> str:
    """You are {{ self.name }}."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_docstring, "no docstring"),
        (asynchronous, "acall"),
        (takes_self, "Jinja2 reserves the name self"),
    ],
)
def test_what_cannot_be_decorated(function: Any, words: str) -> None:
    """A function that could never work is refused where it is decorated."""
    with pytest.raises(TypeError, match=words):
        llm(function)


@pytest.mark.parametrize("kind", ["dicts", "frame", "generator"])
def test_a_table(kind: str) -> None:
    """A row for each item and repeat: its columns, then what was answered; a second run gives the
    same, hits apart.
    """
    pandas = pytest.importorskip("pandas")
    numbers = iter(range(9))
    client = ScriptedClient(lambda _: f"{next(numbers)}", cache_mode="auto")
    call = LLMCall(user="{{ name }}", client=client)
    # its index is no part of the table
    frame = pandas.DataFrame(PEOPLE, index=[7, 7]).astype({"age": "int16"})
    given = {"dicts": PEOPLE, "frame": frame, "generator": iter(PEOPLE)}[kind]
    table = call.table(given, repeats=2, scope="survey", workers=1)
    assert list(table.columns) == ["name", "age", *COLUMNS] and list(table.index) == [0, 1, 2, 3]
    rows = list(zip(table["name"], table["age"], table["repeat"], strict=True))
    assert rows == [("Lisa", 8, 0), ("Lisa", 8, 1), ("Bart", 10, 0), ("Bart", 10, 1)]
    assert len(set(table["value"])) == len(set(table["cache_key"])) == 4
    assert not table["cached"].any() and table["error"].isna().all()
    assert str(table["age"].dtype) == ("int16" if kind == "frame" else "int64")
    again = call.table(PEOPLE, repeats=2, scope="survey").astype(table.dtypes)
    assert again["cached"].all()
    pandas.testing.assert_frame_equal(
        table.drop(columns=["cached", "cost"]), again.drop(columns=["cached", "cost"])
    )
    wider = pandas.DataFrame([{"name": "Maggie"}, *PEOPLE]).assign(score=1.5).sort_values("name")
    assert (
        call.map(wider, scope="survey")[:2] == list(table["value"][[2, 0]])
        and len(client.requests) == 5
    )
    assert call.table(PEOPLE, dry_run=True) == call.map(PEOPLE, dry_run=True)
    assert list(call.table([]).columns) == COLUMNS
    scopes = llmcall.map(
        lambda row: client.build_request(row["name"]).sample, frame, key="age", scope="survey"
    )
    assert scopes == ["survey/8#0", "survey/10#0"]
    # not NumPy's
    assert [type(value) for value in llmcall.map(dict, frame)[0].values()] == [
        str,
        int,
    ]
    with pytest.raises(TypeError, match="a row has the column 0; a column's name must be a string"):
        call.map(pandas.DataFrame([["Lisa"]]))


def test_tables_of_functions() -> None:
    """The arguments' defaults hold; a row with a name of an answer's column is refused before any
    call.
    """
    pytest.importorskip("pandas")
    client = ScriptedClient(lambda messages: "yes" if "bread" in messages[0]["content"] else "no")

    @llm(client=client)
    def would_buy(product: str, price: int = 3) -> bool:
        """Would you buy {{ product }} for {{ price }}?"""
        raise NotImplementedError

    table = would_buy.table([{"product": "bread"}, {"product": "salt"}])
    assert list(table.columns) == ["product", *COLUMNS]
    assert table["value"].tolist() == [True, False] and str(table["value"].dtype) == "bool"
    for name in COLUMNS:
        with pytest.raises(ValueError, match=f"the rows have a column '{name}'"):
            would_buy.table([{"product": "bread", name: 1}])
    assert len(client.requests) == 2


@pytest.mark.parametrize("on_error", ["return", "none"])
def test_failures_in_a_table(on_error: str) -> None:
    """One failed row loses no other: its value is missing, its error is there. By default it is
    raised.
    """
    pytest.importorskip("pandas")
    client = ScriptedClient(lambda messages: "many" if "Bart" in messages[0]["content"] else "7")
    call = LLMCall(user="{{ name }}?", output_type=int, output_retries=0, client=client)
    table = call.table([*PEOPLE, {}], on_error=on_error)
    assert table["value"].isna().tolist() == [False, True, True] and table["error"][0] is None
    assert [type(error) for error in table["error"]][1:] == [OutputError, TemplateError]
    assert table["cache_key"].isna()[2]
    with pytest.raises(OutputError) as caught:
        call.table(PEOPLE, workers=1)
    assert caught.value.results[0].value == 7  # type: ignore[attr-defined]
    returning = LLMCall(
        user="{{ name }}?", output_type=int, output_retries=0, client=client, on_error="return"
    )
    table = returning.table(PEOPLE)
    assert isinstance(table["error"][1], OutputError) and table["cache_key"].notna().all()


@pytest.mark.parametrize("on_error", ["raise", "return", "none"])
def test_a_refusal_has_its_row_whatever_on_error_says(on_error: str) -> None:
    """A table has the refusal's text in the row, without a value or an error."""
    pytest.importorskip("pandas")

    def answered(messages: list[Any]) -> Any:
        """Refuse to speak of Bart."""
        return REFUSAL if "Bart" in messages[0]["content"] else "7"

    client = ScriptedClient(answered, cache_mode="auto")
    call = LLMCall(user="{{ name }}?", output_type=int, client=client)
    for is_cached in (False, True):
        table = call.table(PEOPLE, on_error=on_error)
        assert table["refusal"].fillna("").tolist() == ["", REFUSAL["refusal"]]
        assert table["value"].isna().tolist() == [False, True] and table["error"].isna().all()
        assert table["tries"].tolist() == [1, 1] and table["unread"].isna().all()
        assert table["cached"].tolist() == [is_cached] * 2 and table["cache_key"].notna().all()


def test_a_table_says_how_often_was_asked_and_what_did_not_fit() -> None:
    """tries counts the answers that were asked for, unread is the first one if it did not fit; a
    row that failed has them, too.
    """
    pytest.importorskip("pandas")
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
    call = LLMCall(user="{{ name }}?", output_type=int, client=client)
    table = call.table([{"name": name} for name in answers], on_error="return")
    assert table["tries"].tolist() == [1, 3, 3, 2, 1]
    assert table["unread"].fillna("").tolist() == ["", "many", "much", "Hm.", ""]
    assert table["value"].isna().tolist() == [False, False, True, True, True]
    failed = [type(error).__name__ for error in table["error"]]
    assert failed == ["NoneType"] * 2 + ["OutputError"] + ["InvalidRequestError"] * 2
    assert table["cache_key"].isna().tolist() == [False, False, False, True, True]
    assert call.table([{}], on_error="return")["tries"].tolist() == [0]


def test_a_table_names_the_model_that_answered_and_how_the_answer_ended() -> None:
    """served is the name that the server gave, finish_reason what it said."""
    pytest.importorskip("pandas")
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
    """The fields stand behind the value, those of all rows; a row without a value has none of them."""
    pytest.importorskip("pandas")

    def answered(messages: list[Any]) -> Any:
        """Refuse to speak of Bart."""
        return REFUSAL if "Bart" in messages[0]["content"] else {"item": "salt", "price": 2.5}

    call = LLMCall(user="{{ name }}", output_type=output_type, client=ScriptedClient(answered))
    table = call.table(PEOPLE)
    expected = [*COLUMNS[:2], "item", "price", *COLUMNS[2:]]
    assert list(table.columns) == ["name", "age", *expected]
    assert (table["item"][0], table["price"][0]) == ("salt", 2.5)
    assert table["item"].isna()[1] and table["price"].isna()[1]
    assert list(call.table([]).columns) == expected


def test_a_field_whose_name_is_taken_is_named_after_the_value() -> None:
    """A field with the name of a column of the rows, or of the table, is called value.NAME."""
    pytest.importorskip("pandas")

    class Priced(pydantic.BaseModel):
        price: int
        cost: int

    client = ScriptedClient([{"price": 4, "cost": 3}])
    table = LLMCall(user=USER, output_type=Priced, client=client).table([BREAD])
    assert (table["price"][0], table["value.price"][0], table["value.cost"][0]) == (3, 4, 3)


def test_the_cost_of_a_row() -> None:
    """It is that of all calls that its value took, corrections included."""
    pytest.importorskip("pandas")

    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    answers = [completion(text, usage=usage) for text in ("many", "7")]
    client = Responding(*answers, prices={"gpt-4o-mini": (1e6, 1e6)}, model="gpt-4o-mini")
    call = LLMCall(user="How many?", output_type=int, client=client)
    table = call.table([{}])
    assert (table["value"][0], table["cost"][0], bool(table["cached"][0])) == (7, 4.0, False)
    assert bool(call.table([{}])["cached"][0])


def test_a_table_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas a table is refused before any call, naming the remedy, as a data frame is; a
    map needs none.
    """
    monkeypatch.setitem(sys.modules, "pandas", None)
    call = LLMCall(user="{{ name }}", client=ScriptedClient(lambda _: "yes"))
    with pytest.raises(llmcall.ConfigError, match="pip install pandas"):
        call.table(PEOPLE)
    with pytest.raises(llmcall.ConfigError, match="pip install pandas"):
        llmcall.usage().to_frame()
    assert call.map(PEOPLE) == ["yes", "yes"]


def test_a_table_can_be_written_whatever_the_model_says() -> None:
    """Half of a character, which no file can hold, is U+FFFD in a cell."""
    pytest.importorskip("pandas")
    client = ScriptedClient(lambda messages: "half \ud83d")
    table = llmcall.LLMCall(user="Hello {{ name }}", client=client).table([{"name": "Lisa"}])
    table.to_csv("table.csv")
    assert table["value"].tolist() == ["half \ufffd"]
