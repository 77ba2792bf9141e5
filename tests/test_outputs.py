"""Answers, read as the type that was asked for, by one rule; what it does not read is asked again."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import pytest
from chat_answers import Effort, Mood, Offer, Person, Trade, Visit
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ran

from llmcall import LLMCall, OutputError
from llmcall.testing import ScriptedClient

ANSWERS: list[Any] = []


def said(messages: list[Any]) -> Any:
    """Give the last of the answers."""
    return {"role": "assistant", "content": ANSWERS[-1]}


CLIENT = ScriptedClient(said, model="gpt-3.5-turbo")
STRUCTURED = ScriptedClient(said, model="gpt-4o")


def read(text: str, output_type: Any, client: ScriptedClient = CLIENT) -> Any:
    """Read an answer as an LLMCall does."""
    ANSWERS[:] = [text]
    return LLMCall(user="?", output_type=output_type, output_retries=0, client=client)()


def prompt_for(output_type: Any) -> str:
    """Return what an LLMCall tells a model without structured output of the type."""
    ANSWERS[:] = ["?"]
    CLIENT.requests.clear()
    LLMCall(user="?", output_type=output_type, output_retries=0, client=CLIENT, on_error="return")()
    return CLIENT.requests[-1].messages[0]["content"].removeprefix("?\n\n")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("output_type", "sentence"),
    [
        (bool, "yes or no."),
        (int, "only a whole number."),
        (float, "only a number."),
        (list, "only a JSON array."),
        (Trade, "exactly one of: buy, sell, wait."),
        (Mood, "exactly one of: good, very good, bad."),
        (Effort, "exactly one of: LOW, HIGH."),
        (Literal["a, b", "c"], 'exactly one of: "a, b", "c".'),
        (Literal["a", 1, True, None], "exactly one of: a, 1, true, null."),
        (dict, "only a JSON object."),
        (list[str], "only a JSON array of strings."),
        (int | None, "null, or with only a whole number."),
    ],
)
def test_the_sentence_that_tells_the_type_is_fixed(output_type: Any, sentence: str) -> None:
    """It stands in the prompt, and so in the request's key."""
    assert prompt_for(output_type) == f"Answer with {sentence}"


TYPES = [str, bool, int, float, Trade, Mood, Effort, list, list[int], dict, Offer, Person, Visit]


@pytest.mark.newest_only
@settings(max_examples=20)
@given(
    st.text(min_size=1)
    | st.text("[]{}\"':,\\ \n`0123456789.-+eyesno truefalsnbuygod<>/*#“”’$%", min_size=1)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text is an accident, for no type."""
    for output_type in [*TYPES, int | None, str | None]:
        for client in (CLIENT, STRUCTURED):
            try:
                read(text, output_type, client)
            except OutputError as error:
                assert error.text == text


@pytest.mark.parametrize("unit", ["[", '{"a":', '["', "- 1 ", "```\n", '"', "**", "\\", " "])
def test_an_answer_that_repeats_itself_is_refused(unit: str) -> None:
    """Twenty thousand levels, or repetitions, are like any other nonsense."""
    for output_type in (bool, int, Trade, list, dict, Offer):
        with pytest.raises(OutputError):
            read(unit * 20_000 + " so.", output_type)


SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | SCALARS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
AROUND = st.sampled_from(["{}", "```json\n{}\n```", "Here it is:\n\n```\n{}\n```\nGood luck!"])


@given(
    st.dictionaries(st.text(), PLAIN, max_size=5) | st.lists(PLAIN, max_size=5),
    AROUND,
    st.booleans(),
)
def test_a_value_written_as_json_reads_back_the_same(
    value: Any, around: str, ascii_only: bool
) -> None:
    """By itself, or in the one fenced block."""
    text = around.replace("{}", json.dumps(value, ensure_ascii=ascii_only), 1)
    assert repr(read(text, type(value))) == repr(value)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique_by=lambda text: text.strip()))
def test_every_option_is_read_as_written(options: list[str]) -> None:
    """An option's own text always names it, whatever characters it has."""
    options = [option for option in options if option.strip() == option]
    for option in options:
        assert read(option, Literal[tuple(options)]) == option  # type: ignore[valid-type]


@pytest.mark.parametrize(
    "unreadable", [enum, object(), Literal[b"x"]], ids=["a module", "an object", "bytes"]
)
def test_a_type_that_nothing_can_be_read_as_is_refused(unreadable: Any) -> None:
    """It is the caller's mistake."""
    with pytest.raises(TypeError):
        read("{}", unreadable)


def test_simple_types_import_no_pydantic() -> None:
    """Asking for and reading simple types costs no import of pydantic, a plain text none of Jinja2."""
    program = """
        from typing import Literal
        for kind, text in ((str, "a"), (bool, "yes"), (int, "1"), (float, "1"), (Literal["a"], "a"), (list, "[]"),
                           (list[int], "[1]"), (dict, "{}")):
            for model in ("gpt-3.5-turbo", "gpt-4o"):
                client = ScriptedClient([{"role": "assistant", "content": text}], model=model, prices={model: (0, 0)})
                llmcall.LLMCall(user="?", output_type=kind, client=client)()
        print("pydantic" in sys.modules, "jinja2" in sys.modules)
    """
    assert ran(program) == "False False"
