"""Errors of typed calls, templates and tables, by their words."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import pytest
from clients import Responding
from errors import check_error, error_table
from files import written
from servers import completion

import llmcall
from llmcall.testing import ScriptedClient

PLAIN = "{{ name }}, {{ tone }}: bread?"
ROWS = [{"name": "Ann"}, {"name": "Ben"}]
EXAMPLES = [
    {"role": "user", "content": "Rate {{ first }}."},
    {"role": "assistant", "content": "good"},
]


def unasked() -> ScriptedClient:
    """Return a client that fails the test if it is asked."""
    return ScriptedClient(lambda messages: pytest.fail("a model was asked"))


def call(*names: Any, **options: Any) -> Any:
    """Make a call; no model is asked before the error."""
    return llmcall.LLMCall(*names, **{"client": unasked(), **options})


def asked(history: Any, **variables: Any) -> object:
    """Ask after a history."""
    return call(user="?", history=history)(**variables)


def varied(vary: Any, **options: Any) -> object:
    """Make a table that varies."""
    return call(**{"user": PLAIN, **options}).table(ROWS, vary=vary)


def table(**options: Any) -> object:
    """Make a table with an option that there is not."""
    return call(user="{{ name }}?").table(ROWS[:1], **options)


def included(**variables: object) -> object:
    """Ask by a file that includes others by computed names; ``never`` is a variable of an empty loop."""
    for name, text in {
        "asks": "{% include which %}",
        "a": "Hi {{ a }}.{% for x in [] %}{{ never }}{% include 'b' %}{% endfor %}",
        "b": "Bye {{ b }}.",
        "c": "See {{ c }}.",
    }.items():
        written(f"computed/{name}.md", text)
    ask = llmcall.LLMCall(
        user_template_name="asks",
        template_path=Path("computed").absolute(),
        client=ScriptedClient(["once", "twice"]),  # a third request would be another error
    )
    assert ask(which="a", a=1, b=2, never=3, _free=4) == "once"
    assert ask(which="c", c=1) == "twice"
    return ask(**variables)


def included_parameter() -> object:
    """Ask for a table by a function with such a file."""
    written("computed/b.md", "{% include 'a' ~ '.md' %}")
    written("computed/a.md", "Hello.")
    function = LLM(user_template_name="b", template_path=Path("computed").absolute())(named)
    return function.map(ROWS)


def paid(template: str, **templates: str) -> object:
    """Ask by files about the wage of somebody who has none."""
    for name, text in {"asked.md": template, **templates}.items():
        written(name.replace("_", "."), text)
    name = "pay" if "pay_mustache" in templates else "asked"
    return call(None, name, template_path=".").map(pandas.DataFrame({"wage": [None]}))


def cut() -> object:
    """Ask for a number, and get the beginning of an answer."""
    answer = completion('{"name": "Li', finish_reason="length")
    client = Responding(answer, cache_mode="off")
    return call(user="?", output_type=int, output_retries=0, client=client, max_tokens=5)()


def without(module: str, ask: Callable[[], object]) -> object:
    """Ask where a library is missing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, module, None)
        return ask()


def no_docstring() -> str:
    raise NotImplementedError


async def asynchronous() -> str:
    """Hello?"""
    raise NotImplementedError


def takes_self(self: Any) -> str:
    """You are {{ self.name }}."""
    raise NotImplementedError


def unused_parameter(name: str, _note: str = "") -> str:
    """Hello."""
    raise NotImplementedError


def named(name: str) -> str:
    """Hello {{ name }}."""
    raise NotImplementedError


LLM: Any = llmcall.llm


@error_table(
    # calls that could never work
    ("TypeError: ...needs a template", call),
    ("TypeError: ...given twice", lambda: call("system.md", system="You are.")),
    ("TypeError: ...llmcall.client('openai')", lambda: call(user="Hi.", client="openai")),
    ("ValueError: output_retries", lambda: call(user="Hello", output_retries=-1)),
    ("OutputError: ...raise max_tokens", cut),
    ("TypeError: ...'output_typ'...'output_type'", lambda: call(user="Hi.", output_typ=int)),
    ("TypeError: ...'temprature'...'temperature'", lambda: call(user="Hi.", temprature=1)),
    (
        "TypeError: output_type is ['yes', 'no']; it must be a type, such as Literal['yes', 'no']",
        lambda: call(user="Hi.", output_type=["yes", "no"]),
    ),
    # variables that no template uses
    (
        "TypeError: no template uses the variable 'nam'. Did you mean 'name'? Model parameters go to",
        lambda: call(user="{{ name }}?")(nam="Ann"),
    ),
    (
        "TypeError: no template uses the variable 'temperature'...LLMCall(…, temperature=0)",
        lambda: call(user="{{ word }}?").run(word="x", temperature=0),
    ),
    (
        "TypeError: no template uses the variable 'name'",
        lambda: call(user="Hello $name")(name="Ann"),
    ),
    (
        "TemplateError: ...no template uses the parameter 'name': write {{ name }} there, or call the parameter _name",
        lambda: LLM(unused_parameter),
    ),
    (
        "TemplateError: unused_parameter(): no template uses the parameter 'name'",
        lambda: LLM(user_template_name="f", template_path=Path(written("t/f.md", "Hi.")).parent)(
            unused_parameter
        )("Ann"),
    ),
    ("TypeError: named() has no argument 'nam'. Did you mean 'name'?", lambda: LLM(named)(nam=1)),
    (
        "TypeError: no template uses the variable 'c'. Model parameters",
        lambda: included(which="a", a=1, c=2),
    ),
    ("TemplateError: named(): no template uses the parameter 'name'", included_parameter),
    # values that are missing
    *(
        (
            f"TemplateError: <user>, line 1: the variable 'age' holds nothing in this call ({age!r})",
            partial(call(user="aged {{ age }}"), age=age),
        )
        for age in (None, float("nan"))
    ),
    (
        "TemplateError: <user>, line 1: the variable 'name' holds nothing in this call (None)",
        lambda: LLM(named, client=unasked())(None),
    ),
    # functions that could never work
    ("TypeError: ...no docstring", lambda: LLM(no_docstring)),
    ("TypeError: ...acall", lambda: LLM(asynchronous)),
    ("TypeError: ...Jinja2 reserves the name self", lambda: LLM(takes_self)),
    ("TypeError: @llm takes a function, not 'Would you buy", lambda: LLM("Would you buy?")),
    ("TypeError: @llm takes a function, not <property", lambda: LLM(property(no_docstring))),
    ("TypeError: @llm takes a function, not <built-in", lambda: LLM(len)),
    # histories
    ("TypeError: ...before a question", lambda: call(history=EXAMPLES, system="You rate.")),
    (
        "TypeError: history is dict; it must be a list of",
        lambda: call(history={"role": "user"}, user="?"),
    ),
    (
        "TypeError: history[0] is 'Rate mud.'; it must be a",
        lambda: call(history=["Rate mud."], user="?"),
    ),
    (
        "TypeError: history[0] is ...with a role",
        lambda: call(history=[{"content": "?"}], user="?"),
    ),
    (
        "TemplateError: history: the variable 'talk' is missing; given: none",
        lambda: asked("talk"),
    ),
    (
        "TemplateError: <history[0]>, line 1: the variable 'first' is missing",
        lambda: asked([EXAMPLES[0]]),
    ),
    (
        "TemplateError: <history[0]>, ... tag",
        lambda: asked([{"role": "user", "content": "{first}"}], first=1),
    ),
    (
        "TypeError: the variable 'talk' is str; it must be a list of messages",
        lambda: asked("talk", talk="Hello."),
    ),
    (
        "TypeError: ...before a question",
        lambda: varied({"user": {"a": "?", "none": None}}, system="Rate.", history=EXAMPLES),
    ),
    # axes
    (
        "ValueError: vary has the unknown axis 'tempreature'...'temperature'?...system, user...name, tone",
        lambda: varied({"tempreature": [1]}),
    ),
    ("ValueError: the axis 'name' of vary is also a column", lambda: varied({"name": ["Cleo"]})),
    ("TypeError: ...must be a list of values", lambda: varied({"tone": "kind"})),
    (
        "ValueError: ...rename your column 'repeat'",
        lambda: varied({"user": ["{{ repeat }}"], "repeat": [1]}),
    ),
    (
        "ValueError: ...both a parameter and a variable",
        lambda: varied({"user": ["{{ model }}"], "model": ["x"]}),
    ),
    # tables and files
    *(
        (
            f"ValueError: ...rename your column '{name}'",
            partial(call(user="{{ name }}?").table, [{"name": "Ann", name: 1}]),
        )
        for name in ("repeat", "value", "cost")
    ),
    (
        "TypeError: map() has no argument 'keys'. Did you mean 'key'?",
        lambda: call(user="?").map(ROWS, keys="name"),
    ),
    (
        "TypeError: table() has no argument 'varry'. Did you mean 'vary'?",
        lambda: table(varry={"model": ["x"]}),
    ),
    (
        "TemplateError: pay.md...'wage' holds nothing in row 0",
        lambda: paid("Hi. {% include 'pay' %}", pay_md="You earn {{ wage }}."),
    ),
    (
        "TemplateError: ...'wage' holds nothing in row 0",
        lambda: paid("", pay_mustache="{{wage}}"),
    ),
    (
        "TemplateError: ... is not a folder (set template_path= or [Templates] PATH)",
        lambda: call("buyer", template_path="missing")(),
    ),
    (
        "ConfigError: ...pay.mustache ... needs the library pystache ...'mustache'",
        lambda: without("pystache.parser", lambda: paid("", pay_mustache="{{wage}}")),
    ),
    ("ConfigError: ...pip install pandas", lambda: without("pandas", table)),
)
def test_an_error_names_what_is_wrong_and_no_model_is_asked(
    line: str, call: Callable[[], object]
) -> None:
    """It says what to write."""
    check_error(line, call)


@llmcall.llm(client=ScriptedClient([], cache_mode="replay"))
def recorded(name: str) -> str:
    """Hello {{ name }}."""
    raise NotImplementedError


@pytest.mark.parametrize(
    "ask",
    [
        lambda: recorded("Ann"),
        lambda: recorded.run("Ann"),
        lambda: asyncio.run(recorded.acall("Ann")),
        lambda: recorded.llm_call(name="Ann"),
        lambda: recorded.llm_call.run(name="Ann"),
        lambda: asyncio.run(recorded.llm_call.acall(name="Ann")),
        lambda: recorded.map([{"name": "Ann"}]),
        lambda: recorded.llm_call.client.send_message("Hello.", modle="m"),
        lambda: recorded.llm_call.client.stream_message("Hello.", modle="m"),
        lambda: recorded.llm_call.client.send_message("Hello."),
        lambda: asyncio.run(recorded.llm_call.client.asend_message("Hello.")),
        lambda: recorded.llm_call.client.get_embedding("Hello."),
        lambda: llmcall.llm(without, modle="m"),  # a function with a docstring
        lambda: call(user="Hello.", modle="m"),
    ],
)
def test_an_error_shows_at_most_two_frames_of_llmcall(ask: Callable[[], object]) -> None:
    """The user's frames are above them."""
    with pytest.raises((llmcall.CacheMissError, TypeError)) as caught:
        ask()
    paths = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert len([path for path in paths if path.startswith(*llmcall.__path__)]) <= 2, paths
