"""@llm: a docstring, an annotation and a model make a function."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest

import llmcall
from llmcall import llm
from llmcall.testing import ScriptedClient

if TYPE_CHECKING:
    from decimal import Decimal


class Offer(pydantic.BaseModel):
    """Be what somebody offers."""

    item: str
    price: int


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
def answers() -> list[Any]:
    """Give the list that the configured client answers from, in turn."""
    given: list[Any] = []
    client = ScriptedClient(lambda messages: given.pop(0), model="gpt-3.5-turbo")
    llmcall.register_client("scripted", client)
    llmcall.force_api_type("scripted")
    return given


def prompts(function: Any) -> list[Any]:
    """Return the contents of the messages of a function's last call."""
    return [message["content"] for message in function.llm_call.messages]


def test_without_parentheses(answers: list[Any]) -> None:
    """The bare decorator takes the docstring as the prompt."""
    answers.append("Good day, Lisa.")
    assert greeting("Lisa") == "Good day, Lisa."
    assert prompts(greeting)[0] == "Greet Lisa."


def test_with_parentheses(answers: list[Any]) -> None:
    """The decorator's arguments are those of LLMCall."""

    @llm(system="You are {{ name }}.", temperature=1)
    def would_buy(name: str, product: str, price: float) -> bool:
        """Would you buy {{ product }} for {{ price }} coins?"""
        raise NotImplementedError

    answers.append("No!")
    assert would_buy("Lisa", "bread", price=3) is False
    system, user, _ = prompts(would_buy)
    assert system == "You are Lisa." and user.startswith("Would you buy bread for 3 coins?")
    scripted: Any = llmcall.client()
    assert scripted.requests[-1].asked["temperature"] == 1


def test_defaults_and_keywords(answers: list[Any]) -> None:
    """Arguments go by position, by name or by default, as in any function."""

    @llm
    def sentence(a: str, /, b: str = "B", *c: str, d: str = "D", **e: str) -> str:
        """{{ a }} {{ b }} {{ c | join(' ') }} {{ d }} {{ e.f }}"""
        raise NotImplementedError

    answers += ["."] * 2
    sentence("1", f="6")
    assert prompts(sentence)[0] == "1 B  D 6"
    sentence("1", "2", "3", "4", d="5", f="6")
    assert prompts(sentence)[0] == "1 2 3 4 5 6"


@pytest.mark.parametrize("arguments", [(), ("Lisa", "Tom")], ids=["too few", "too many"])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    """Missing or surplus arguments are the TypeError of any function."""
    with pytest.raises(TypeError, match="argument"):
        greeting(*arguments)


@pytest.mark.parametrize(
    ("returned", "answer", "value"),
    [
        (str, "Yes.", "Yes."),
        (bool, "Yes.", True),
        (Literal["buy", "sell"], "sell", "sell"),
        (list[str], '["a", "b"]', ["a", "b"]),
        ("list[Offer]", '[{"item": "a", "price": 1}]', [Offer(item="a", price=1)]),
        (Offer, '{"item": "a", "price": 1}', Offer(item="a", price=1)),
        (int | None, "null", None),
        (inspect.Signature.empty, "Yes.", "Yes."),
    ],
    ids=str,
)
def test_return_types(answers: list[Any], returned: Any, answer: str, value: Any) -> None:
    """The return annotation is the output type, as a type or as its name; without one it is a text."""

    def function() -> Any:
        """What now?"""

    function.__annotations__ = {} if returned is inspect.Signature.empty else {"return": returned}
    answers.append(answer)
    assert llm(function)() == value


def test_an_argument_annotated_for_type_checkers_only(answers: list[Any]) -> None:
    """Names that do not exist when the program runs do not matter in arguments."""

    @llm
    def halve(price: Decimal) -> int:
        """Half of {{ price }}?"""
        raise NotImplementedError

    answers.append("2")
    assert halve(4) == 2  # type: ignore[arg-type]


def test_methods(answers: list[Any]) -> None:
    """A method asks for its object, whose attributes the template reads."""
    answers += ["Yes."] * 3
    lisa = Person("Lisa")
    assert lisa.would_buy("bread") is True
    assert prompts(lisa.would_buy)[0].startswith("You are Lisa. Would you buy bread for 3?")
    assert Person.would_buy(Person("Tom"), "salt", price=1) is True
    assert lisa.would_buy.run("salt").messages[0]["content"].startswith("You are Lisa. Would you buy salt")


def test_run_and_acall(answers: list[Any]) -> None:
    """run gives the reply and the messages too, and acall the value without blocking."""
    answers += ["Hello.", "Hello again."]
    answer = greeting.run("Lisa")
    assert (answer.value, answer.reply and answer.reply.content) == ("Hello.", "Hello.")
    assert [message["role"] for message in answer.messages] == ["user", "assistant"]
    assert asyncio.run(greeting.acall(name="Tom")) == "Hello again."


def test_a_user_template_beside_the_docstring(answers: list[Any]) -> None:
    """With a user template among the arguments the docstring is only a docstring."""

    @llm(user="Greet {{ name }} politely.")
    def polite(name: str) -> str:
        """Greet somebody politely."""
        raise NotImplementedError

    answers.append("Dear Lisa")
    polite("Lisa")
    assert prompts(polite)[0] == "Greet Lisa politely."


def test_it_looks_like_the_function() -> None:
    """Name, docstring, module and signature are the function's."""
    assert greeting.__name__ == "greeting" and greeting.__doc__ == "Greet {{ name }}."
    assert greeting.__module__ == __name__
    assert str(inspect.signature(greeting)) == "(name: 'str') -> 'str'"


def test_pickling() -> None:
    """A function is pickled by its name, a method by its object and its name."""
    assert pickle.loads(pickle.dumps(greeting)) is greeting
    method = pickle.loads(pickle.dumps(Person("Lisa").would_buy))
    assert method.llm_call is Person.would_buy.llm_call
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(llm(lambda_like()))


def lambda_like() -> Any:
    """Return a function that no module has under its name."""

    def inner() -> str:
        """What now?"""
        raise NotImplementedError

    return inner


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
    [(no_docstring, "no docstring"), (asynchronous, "acall"), (takes_self, "Jinja2 keeps the name self")],
)
def test_what_cannot_be_decorated(function: Any, words: str) -> None:
    """A function that could never work is refused where it is decorated."""
    with pytest.raises(TypeError, match=words):
        llm(function)


def test_decorating_asks_nothing() -> None:
    """A decorated function needs no client, no key and no template engine before its first call."""
    with llmcall.configured(api_type="openai"):
        assert llm(lambda_like()).llm_call.output_type is str
