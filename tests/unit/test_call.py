"""LLMCall: templates in, a value out; asked again where the answer does not fit."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import threading
import weakref
from typing import Any

import pytest
from project_files import written

import llmcall
from llmcall import LLMCall, OutputError, TemplateError
from llmcall.testing import ScriptedClient

USER = "Would you buy {{ product }} for {{ price }} coins?"
BREAD: dict[str, Any] = {"product": "bread", "price": 3}
REFUSAL = {"role": "assistant", "content": None, "refusal": "I do not talk about bread."}


def asked(client: ScriptedClient, request: int = -1) -> list[tuple[str, Any]]:
    """Return role and content of the messages of a request."""
    return [(message["role"], message["content"]) for message in client.requests[request].messages]


def test_texts() -> None:
    """Templates given as texts become a system and a user message, and the answer is the value."""
    client = ScriptedClient(["Yes, I would."])
    call = LLMCall(system="You are {{ name }}.", user=USER, client=client)
    assert call.call(name="Lisa", **BREAD) == "Yes, I would."
    assert asked(client) == [("system", "You are Lisa."), ("user", "Would you buy bread for 3 coins?")]


@pytest.mark.parametrize(
    ("names", "texts", "roles"),
    [
        (("system.md", "user.txt"), {}, ["system", "user"]),
        (("system", "user"), {}, ["system", "user"]),
        (("system",), {}, ["system"]),
        ((None, "user"), {}, ["user"]),
        (("system",), {"user": "Hello"}, ["system", "user"]),
        ((None, "user"), {"system": "Hello"}, ["system", "user"]),
        ((), {"system": "Hello"}, ["system"]),
    ],
)
def test_files_and_texts(names: tuple[Any, ...], texts: dict[str, str], roles: list[str]) -> None:
    """Each template is a file under [Templates] PATH, with or without its suffix, or a text."""
    written("templates/system.md", "    You are here.\n")
    written("templates/user.txt", "Who am I?")
    client = ScriptedClient(["Nobody."])
    LLMCall(*names, **texts, client=client).call()
    assert [role for role, _ in asked(client)] == roles
    assert asked(client)[0][1] in ("You are here.", "Who am I?", "Hello")


def test_template_path() -> None:
    """A folder of the call's own goes before the configured one."""
    written("prompts/greeting.md", "Hello {{ name }}")
    client = ScriptedClient(["Hi."])
    LLMCall(None, "greeting", template_path="prompts", client=client).call(name="Lisa")
    assert asked(client) == [("user", "Hello Lisa")]


def test_mustache() -> None:
    """A .mustache file is rendered as Mustache."""
    pytest.importorskip("pystache")
    written("templates/offer.mustache", "Buy{{#goods}} {{.}}{{/goods}}{{^goods}} nothing{{/goods}}!")
    client = ScriptedClient(["Yes."] * 2)
    call = LLMCall(None, "offer.mustache", client=client)
    call.call(goods=["bread", "salt"])
    call.call(goods=[])
    assert [asked(client, index)[0][1] for index in (0, 1)] == ["Buy bread salt!", "Buy nothing!"]


@pytest.mark.parametrize(
    ("names", "options", "error", "words"),
    [
        ((), {}, TypeError, "needs a template"),
        (("system.md",), {"system": "You are."}, TypeError, "given twice"),
        ((None, "user.md"), {"user": "Hello"}, TypeError, "the user template is given twice"),
        ((), {"user": "Hello", "output_retries": -1}, ValueError, "output_retries"),
        ((), {"user": "Hello", "output_retries": 1.5}, ValueError, "output_retries"),
    ],
)
def test_wrong_construction(names: Any, options: Any, error: type[Exception], words: str) -> None:
    """A call that could never work is refused when it is made."""
    with pytest.raises(error, match=words):
        LLMCall(*names, **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (LLMCall(user=USER), "price"),
        (LLMCall(user="{% if %}"), "<user>, line 1"),
        (LLMCall(user="{{ product }}", system="{{ missing }}"), "<system>, line 1.*missing"),
        (LLMCall("missing.md"), "missing.md"),
    ],
    ids=["variable", "syntax", "system", "file"],
)
def test_template_errors(call: LLMCall, words: str) -> None:
    """A missing variable or file or a syntax error is named, and nothing is asked."""
    with pytest.raises(TemplateError, match=words):
        call.call(product="bread")


def test_unknown_parameter() -> None:
    """A misspelt model parameter is a TypeError that suggests the right one."""
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        LLMCall(user="Hello", client=ScriptedClient(["Hi."]), temprature=1).call()


def test_an_answer_that_does_not_fit_is_asked_again() -> None:
    """The correction holds the answer and says why it does not fit and what is expected."""
    client = ScriptedClient(["Perhaps.", "Yes."])
    answer = LLMCall(user=USER, output_type=bool, client=client, model="scripted").run(**BREAD)
    assert answer.value is True
    first, said, correction = asked(client)
    assert first == ("user", "Would you buy bread for 3 coins?\n\nAnswer with yes or no.")
    assert said == ("assistant", "Perhaps.")
    assert correction[0] == "user"
    assert "not yes or no" in correction[1] and "Answer with yes or no." in correction[1]
    assert [message["role"] for message in answer.messages] == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_output_error(retries: int) -> None:
    """After the retries an OutputError has the last answer and what was expected."""
    client = ScriptedClient([f"No number {'I' * index}." for index in range(9)])
    call = LLMCall(user="How many?", output_type=int, output_retries=retries, client=client)
    with pytest.raises(OutputError, match="whole number") as raised:
        call.call()
    assert len(client.requests) == retries + 1
    assert raised.value.text == f"No number {'I' * retries}."
    assert "only a whole number" in raised.value.expected
    assert call.model_output is not None and call.model_output.content == raised.value.text


def test_each_retry_is_recorded() -> None:
    """The answers that did not fit are recorded too, so that a second run asks nothing and gives the same."""
    client = ScriptedClient(["Perhaps.", "Who knows?", "No."], cache_mode="auto")
    calls = [LLMCall(user=USER, output_type=bool, client=client) for _ in range(2)]
    assert [call.call(**BREAD) for call in calls] == [False, False]
    assert len(client.requests) == len(client.cache) == 3
    assert calls[1].model_output is not None and calls[1].model_output.cached


def test_refusal() -> None:
    """A refusal is no answer: it is asked again, and at the end the error says so."""
    client = ScriptedClient([REFUSAL, "Well, yes."])
    assert LLMCall(user=USER, output_type=bool, client=client).call(**BREAD) is True
    client = ScriptedClient([REFUSAL] * 3)
    with pytest.raises(OutputError, match="refused") as raised:
        LLMCall(user=USER, client=client).call(**BREAD)
    assert raised.value.text == REFUSAL["refusal"]


def test_failures_raise() -> None:
    """A call that failed for good raises, whatever ON_ERROR is configured."""
    error = llmcall.InvalidRequestError("no such model")
    with llmcall.configured(on_error="none"):
        for params in ({}, {"on_error": None}):
            with pytest.raises(llmcall.InvalidRequestError):
                LLMCall(user=USER, client=ScriptedClient([error]), **params).call(**BREAD)


@pytest.mark.parametrize("answers", [[llmcall.InvalidRequestError("no")], ["Hm."] * 3], ids=["api", "output"])
def test_on_error(answers: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """With on_error among the model parameters a failure is logged and None, or returned."""
    with caplog.at_level(logging.ERROR, "llmcall"):
        call = LLMCall(user=USER, output_type=int, client=ScriptedClient(answers), on_error="none")
        assert call.call(**BREAD) is None
    assert len(caplog.records) == 1
    call = LLMCall(user=USER, output_type=int, client=ScriptedClient(answers), on_error="return")
    assert isinstance(call.call(**BREAD), (llmcall.InvalidRequestError, OutputError))


def test_a_wrong_argument_is_always_raised() -> None:
    """on_error speaks of API failures alone."""
    with pytest.raises(TypeError, match="model"):
        LLMCall(user=USER, client=ScriptedClient(["Hi."]), on_error="none", model=5).call(**BREAD)


def test_the_last_call() -> None:
    """messages and model_output are of the last call, and of none before the first."""
    client = ScriptedClient(["One.", "Two."])
    call = LLMCall(user="{{ x }}", client=client)
    assert call.messages is None and call.model_output is None
    for x, content in ((1, "One."), (2, "Two.")):
        call.call(x=x)
        assert call.messages == [{"role": "user", "content": str(x)}, {"role": "assistant", "content": content}]
        assert call.model_output is not None and call.model_output.content == content
    with pytest.raises(AssertionError):
        call.call(x=3)
    assert call.model_output is None and call.messages == [{"role": "user", "content": "3"}]


def test_the_last_call_of_each_thread() -> None:
    """Threads do not see one another's last call."""
    call = LLMCall(user="{{ x }}", client=ScriptedClient(lambda messages: messages[0]["content"] * 2))
    barrier, seen = threading.Barrier(8), {}

    def ask(x: int) -> None:
        call.call(x=x)
        barrier.wait()
        seen[x] = call.model_output

    threads = [threading.Thread(target=ask, args=(x,)) for x in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {x: reply["content"] for x, reply in seen.items() if reply} == {x: str(x) * 2 for x in range(8)}
    assert call.model_output is None


def test_the_last_call_of_each_task() -> None:
    """Tasks do not see one another's last call, nor does their parent."""
    call = LLMCall(user="{{ x }}", client=ScriptedClient(lambda messages: messages[0]["content"] * 2))

    async def ask(x: int) -> Any:
        value = await call.acall(x=x)
        await asyncio.sleep(0)
        return value, call.messages and call.messages[0]["content"]

    async def ask_all() -> list[Any]:
        found = await asyncio.gather(*(ask(x) for x in range(8)))
        assert call.messages is None
        return found

    assert asyncio.run(ask_all()) == [(str(x) * 2, str(x)) for x in range(8)]


def test_acall_as_call() -> None:
    """The asynchronous call asks again, raises and records as the synchronous one does."""
    client = ScriptedClient(["Perhaps.", "No."], cache_mode="auto")
    call = LLMCall(user=USER, output_type=bool, client=client)
    assert asyncio.run(call.acall(**BREAD)) is False
    assert call.call(**BREAD) is False and len(client.requests) == 2
    failing = LLMCall(user=USER, output_type=bool, output_retries=0, client=ScriptedClient(["Perhaps."]))
    with pytest.raises(OutputError):
        asyncio.run(failing.acall(**BREAD))


def test_a_variable_of_any_name() -> None:
    """No argument of a method is in a variable's way."""
    client = ScriptedClient(["Hi."] * 2)
    call = LLMCall(user="{{ messages }} {{ client }} {{ variables }}", client=client)
    call(messages=1, client=2, variables=3, self=4)
    assert asked(client) == [("user", "1 2 3")]


def test_a_forgotten_call_is_freed() -> None:
    """What a call gave last does not keep it alive."""
    call = LLMCall(user="Hello", client=ScriptedClient(["Hi."]))
    call.call()
    seen = weakref.ref(call)
    del call
    gc.collect()
    assert seen() is None


def test_pickling() -> None:
    """A call can be sent to another process, also after its templates were compiled."""
    call = LLMCall(user=USER, output_type=bool)
    call.render(**BREAD)
    assert pickle.loads(pickle.dumps(call)).render(**BREAD) == call.render(**BREAD)


def test_the_configured_client() -> None:
    """Without a client of its own the call asks the configured one of the moment."""
    call = LLMCall(user="Hello")
    for name in ("first", "second"):
        llmcall.register_client(name, ScriptedClient([name]))
        llmcall.force_api_type(name)
        assert call.call() == name
