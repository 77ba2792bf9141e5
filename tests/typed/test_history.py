"""``history=``: worked examples as templates, or a conversation so far, before the question."""

from __future__ import annotations

from typing import Any, Literal

import pandas
import pytest

import llmcall
from llmcall import LLMCall, TemplateError
from llmcall.testing import ScriptedClient

EXAMPLES: list[dict[str, Any]] = [
    {"role": "user", "content": "Rate {{ first }}."},
    {"role": "assistant", "content": "good"},
    {"role": "user", "content": "Rate mud."},
    {"role": "assistant", "content": "bad"},
]
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Is {{ it }} yours? Yes or no?"},
    {"role": "assistant", "content": "Yes. {{ It }} is."},
]


class Echo(ScriptedClient):
    """Answers with the number of messages and the last one, in other processes too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            lambda messages: f"{len(messages)} {messages[-1]['content']}",
            **{"cache_mode": "auto", **settings},
        )

    def __reduce__(self) -> Any:
        return Echo, ()


def sent(client: ScriptedClient, number: int = -1) -> list[tuple[Any, Any]]:
    """Return the roles and contents of a request."""
    messages = client.requests[number].messages
    return [(message["role"], message.get("content")) for message in messages]


# Worked examples


def test_worked_examples_stand_between_the_system_message_and_the_question() -> None:
    """Their contents are templates, dedented as any."""
    client = Echo()
    examples = [{"role": "user", "content": "\n    Rate {{ first }}.\n"}, *EXAMPLES[1:]]
    call = LLMCall(system="You rate.", user="Rate {{ item }}.", history=examples, client=client)
    assert call(first="gold", item="salt") == "6 Rate salt."
    assert sent(client) == [
        ("system", "You rate."),
        ("user", "Rate gold."),
        ("assistant", "good"),
        ("user", "Rate mud."),
        ("assistant", "bad"),
        ("user", "Rate salt."),
    ]
    assert call.messages is not None
    assert len(call.messages) == 7


def test_tool_calls_of_an_example_are_sent_as_they_are() -> None:
    """A tool call, and a tool's result, whose text is a template."""
    client = Echo()
    function = {"name": "price", "arguments": '{"item": "{{ item }}"}'}
    examples = [
        {"role": "user", "content": "Bread?", "name": "Ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "{{ price }}"},
    ]
    LLMCall(user="Buy?", history=examples, client=client)(price=3)
    assert client.requests[0].messages[:2] == examples[:2]
    assert client.requests[0].messages[2] == {**examples[2], "content": "3"}


def test_texts_in_the_parts_of_an_example_are_templates() -> None:
    """Beside an image, which is sent as it is, such as a photo with a rating."""
    client = Echo()
    image = {"type": "image_url", "image_url": {"url": "https://example.com/{{ item }}.png"}}
    parts = [{"type": "text", "text": "Rate {{ item }}."}, image]
    call = LLMCall(user="And salt?", history=[{"role": "user", "content": parts}], client=client)
    call(item="gold")
    assert client.requests[0].messages[0] == {
        "role": "user",
        "content": [{"type": "text", "text": "Rate gold."}, image],
    }
    with pytest.raises(TemplateError, match=r"history\[0\].*line 1.*'item' is missing"):
        call()


def test_options_that_the_examples_show_are_not_listed_again() -> None:
    """They are what the templates give, as the question is."""
    client = ScriptedClient(["good"], model="my-model")
    call = LLMCall(
        user="Rate salt.", history=EXAMPLES, output_type=Literal["good", "bad"], client=client
    )
    call(first="gold")
    assert sent(client)[-1][1].endswith("Answer with exactly one of the options above.")


# A conversation so far


def test_a_conversation_so_far_is_sent_as_it_is() -> None:
    """Texts of a conversation are no templates."""
    client = Echo()
    call = LLMCall(system="You are Ann.", user="{{ ask }}?", history="talk", client=client)
    call(talk=TALK, ask="Really")
    assert client.requests[0].messages[1:3] == TALK
    call(talk=(), ask="Really")
    assert sent(client) == [("system", "You are Ann."), ("user", "Really?")]


def test_the_messages_of_an_answer_are_a_conversation_so_far() -> None:
    """The call's own system message stands once."""
    client = Echo()
    call = LLMCall(system="It is day {{ day }}.", user="{{ ask }}?", history="talk", client=client)
    messages: list[dict[str, Any]] = []
    for day, ask in enumerate(["Bread", "Salt", "Milk"]):
        messages = call.run(talk=messages, day=day, ask=ask).messages
    assert sent(client) == [
        ("system", "It is day 2."),
        ("user", "Bread?"),
        ("assistant", "2 Bread?"),
        ("user", "Salt?"),
        ("assistant", "4 Salt?"),
        ("user", "Milk?"),
    ]
    LLMCall(user="{{ ask }}?", history="talk", client=client)(talk=messages, ask="Oil")
    assert sent(client)[0] == ("system", "It is day 2.")


def test_options_that_somebody_spoke_of_are_listed() -> None:
    """A conversation holds no list of them, whatever its words."""
    client = ScriptedClient(["yes"], model="my-model")
    assert LLMCall(user="Sell?", history="talk", output_type=bool, client=client)(talk=TALK)
    assert sent(client)[-1] == ("user", "Sell?\n\nAnswer with yes or no.")


def test_a_function_takes_its_conversation_as_an_argument() -> None:
    client = Echo()

    @llmcall.llm(system="You are {{ name }}.", history="talk", client=client)
    def reply(name: str, talk: list[Any], ask: str) -> str:
        """{{ ask }}?"""
        raise NotImplementedError

    assert reply("Ann", TALK, ask="Bread") == "4 Bread?"
    assert reply.map([{"name": "Ann", "talk": TALK, "ask": "Salt"}]) == ["4 Salt?"]


# As any question


@pytest.mark.parametrize("history", ["talk", EXAMPLES])
def test_an_answer_that_does_not_fit_is_asked_again_after_the_history(history: Any) -> None:
    client = ScriptedClient(["Well.", "3"], model="my-model")
    call = LLMCall(user="How many?", history=history, output_type=int, client=client)
    assert call.map([{"talk": TALK, "first": "gold"}]) == [3]
    first, again = sent(client, 0), sent(client, 1)
    assert first[-1] == ("user", "How many?\n\nAnswer with only a whole number.")
    assert again[: len(first) + 1] == [*first, ("assistant", "Well.")]
    assert again[-1][1].startswith("I cannot use that answer")


ROWS = [{"name": "Ann", "talk": TALK}, {"name": "Ann", "talk": TALK[:1]}]


def test_rows_are_distinguished_by_their_conversations() -> None:
    """An answer is that of the row; another column makes no new call."""
    client = Echo()
    call = LLMCall(user="{{ name }}?", history="talk", client=client)
    assert call.map(ROWS, scope="s") == ["3 Ann?", "2 Ann?"]
    more = [{**row, "age": 7} for row in reversed(ROWS)]
    assert call.map(more, scope="s") == ["2 Ann?", "3 Ann?"]
    assert len(client.requests) == 2


def test_a_frame_holds_conversations_in_its_cells() -> None:
    call = LLMCall(user="{{ name }}?", history="talk", client=Echo())
    table = call.table(pandas.DataFrame(ROWS))
    assert table["value"].tolist() == ["3 Ann?", "2 Ann?"]


def test_examples_vary_in_a_table() -> None:
    call = LLMCall(user="Rate {{ item }}.", client=Echo())
    levels = {"none": None, "some": [*EXAMPLES[2:]]}
    table = call.table([{"item": "salt"}], vary={"history": levels})
    assert table["value"].tolist() == ["1 Rate salt.", "3 Rate salt."]
    assert table["history"].tolist() == ["none", "some"]
