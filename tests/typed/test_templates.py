"""Prompts from templates: text, files, the sandbox, and errors that name everything but values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall import LLMCall, TemplateError
from llmcall.testing import ScriptedClient

SECRET = "hunter2-hunter2"
ITEMS = [{"what": 1}, {"what": "&"}]
LETTER: dict[str, Any] = {"name": "<A>", "title": "T", "items": [], "me": {"first": "B"}}


def rendered(
    text: str | None, variables: dict[str, Any], name: str | None = None, folder: Any = None
) -> str:
    """Return the user message that a template gives."""
    client = ScriptedClient(["."])
    LLMCall(None, name, user=text, template_path=folder, client=client).map([variables])
    return client.requests[0].messages[0]["content"]  # type: ignore[no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with templates of every kind."""
    files = {
        "buyer.md": "\n    You are {{ name }}.\n      {% include 'mood' %}\n",
        "mood.txt": "You feel {{ mood }}.\n",
        "base.jinja": "Hello. {% block body %}{% endblock %}",
        "child.j2": "{% extends 'base' %}{% block body %}Bye, {{ who.first }}.{% endblock %}",
        "market/day.md": "Day {{ day }}",
        "market/range.md": "{{ range }}",
        "market/spy.md": "{% include whom %}",
        "twice.md": "md",
        "twice.txt": "txt",
        "optional.md": "a{% include 'x' ignore missing %}{% include ['y', 'twice'] %}",
        "bom.txt": "\ufeffplain é",
        "letter.mustache": "Dear {{name}} & {{{title}}},\n{{#items}}\n- {{what}}\n{{/items}}\n"
        "{{^items}}nothing\n{{/items}}{{> end}}",
        "end.mustache": "Yours, {{me.first}}",
        "end.md": "no Mustache",
        "open.mustache": "x\n{{#a}}\n",
        "single.mustache": "Hi {name}",
        "private.mustache": "\n\nx {{a.__class__}}",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("Hi {{ name }}!", {"name": "Lisa"}, "Hi Lisa!"),
        ("\n\n    Hi\n      you\n  \n", {}, "Hi\n  you"),
        ("\f\n  Hi\n    you \n\u3000\n\xa0", {}, "Hi\n  you "),
        ("a\r\nb {{ x }}\r\n", {"x": 1}, "a\nb 1"),
        ("plain }} text", {}, "plain }} text"),
        ("{{ a }} {{ b }}", {"a": "{{ b }}", "b": "<i> & {% if %}"}, "{{ b }} <i> & {% if %}"),
        ("{{ x | default('none') }} {{ x is defined }}", {}, "none False"),
        ("{{ range }}", {"range": "5-10"}, "5-10"),
        (
            "{{ messages }} {{ client }} {{ text }}",
            {"messages": 1, "client": 2, "text": 3, "self": 4},
            "1 2 3",
        ),
    ],
)
def test_a_text_is_kept_but_for_common_indentation_and_blank_lines_around_it(
    text: str, variables: dict[str, Any], expected: str
) -> None:
    """A variable may have any name."""
    assert rendered(text, variables) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a\n{{ nmae }}",
            "line 2: the variable 'nmae' is missing; given: age, name. Did you mean 'name'?",
        ),
        ("{{ name.first }}", "line 1: 'str object' has no attribute 'first'"),
        (
            "\n\n{{ name }}\n{% if %}",
            "line 2: Expected an expression, got 'end of statement block'",
        ),
        ("{{ name | random }}", "line 1: No filter named 'random'."),
        ("{{ name + 1 }}", "line 1: an expression raises TypeError"),
        (
            "{% macro r() %}{{ r() }}{% endmacro %}{{ r() }}",
            "line 1: an expression raises RecursionError",
        ),
        (
            "{% include 'x' %}",
            "line 1: a template given as text cannot include 'x', because it has no folder",
        ),
        ("{{ name.upper }}", "line 1: it prints a function. Did you mean to call it?"),
        *(
            (text, "line 1: it prints a object, which has no text (no __str__ or __repr__)")
            for text in (
                *("{{ it }}", "{{ it | string }}", "{{ [it] | join }}", "{{ it ~ '!' }}"),
                *("{{ it | e }}", "{{ {'it': it} | xmlattr }}"),
            )
        ),
        (
            "{{ it | upper }}",
            "line 1: it prints a OBJECT, which has no text (no __str__ or __repr__)",
        ),
        ("{{ [it] }}", "line 1: it prints a object, which has no text"),
        ("{{ {'a': (it,)} }}", "line 1: it prints a object, which has no text"),
        (
            "{{ [name] | map('upper') }}",
            "line 1: it prints a generator, which has no text; for its items, add | join(', ')",
        ),
        ("{{ self }}", "line 1: it prints Jinja2's own self, not a variable"),
        ("{{ lipsum() }}", "line 1: the variable 'lipsum' is missing; given: age, name"),
        # no template reaches into Python or changes what it is given
        *(
            (text, "line 1: an expression raises SecurityError")
            for text in (
                "{{ ''.__class__ }}",
                "{{ '{0.__class__}'.format(whom) }}",
                "{{ given.append(1) }}",
            )
        ),
    ],
)
def test_an_error_in_a_template_names_template_and_line_and_no_value(
    text: str, message: str
) -> None:
    """No model is asked, and no argument is changed."""
    client, numbers = ScriptedClient(), [1]
    unnamed = {
        name: value
        for name, value in (("it", object()), ("whom", rendered), ("given", numbers))
        if name in text
    }
    with pytest.raises(TemplateError) as caught:
        LLMCall(user=text, client=client).render(name=SECRET, age=3, **unnamed)
    assert str(caught.value).startswith(f"<user>, {message}")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert (client.requests, numbers) == ([], [1])


@pytest.mark.parametrize(
    ("name", "variables", "expected"),
    [
        ("buyer", {"name": "Lisa", "mood": "well"}, "You are Lisa.\n  You feel well."),
        ("buyer.md", {"name": "Lisa", "mood": "well"}, "You are Lisa.\n  You feel well."),
        ("child", {"who": {"first": "Ann"}}, "Hello. Bye, Ann."),
        ("market/day", {"day": 3}, "Day 3"),
        ("twice", {}, "md"),
        ("optional", {}, "amd"),
        ("bom", {}, "plain é"),
        (
            "letter",
            {**LETTER, "title": "{{name}}", "items": ITEMS},
            "Dear <A> & {{name}},\n- 1\n- &\nYours, B",
        ),
        ("letter", LETTER, "Dear <A> & T,\nnothing\nYours, B"),
    ],
)
def test_a_template_is_found_with_or_without_its_suffix(
    folder: Path, name: str, variables: dict[str, Any], expected: str
) -> None:
    """Below the configured folder or the call's own, and so is what it includes."""
    assert rendered(None, variables, name, folder) == expected
    with llmcall.configured(templates_path=folder):
        assert rendered(None, variables, name) == expected


@pytest.mark.parametrize(
    ("name", "used"),
    [("buyer", "mood"), ("child", "who"), ("letter", "me"), ("market/range", "range")],
)
def test_a_column_that_only_an_included_template_uses_distinguishes_items(
    folder: Path, name: str, used: str
) -> None:
    """In a map, what an included, extended or partial template uses; no other column does."""
    base: dict[str, Any] = {"name": "A", "title": "T", "items": [], "mood": "x", "range": 1}
    base |= {"who": {"first": "x"}, "me": {"first": "x"}}
    rows = [base, {**base, used: {"first": "y"}}, {**base, "age": 3}]
    client = ScriptedClient(lambda messages: messages[0]["content"], cache_mode="auto")
    call = LLMCall(None, name, template_path=folder, client=client)
    with llmcall.scope("survey"):
        call.map(rows[:1])
    with llmcall.scope("survey"):
        call.map(rows[1:])
    assert len(client.requests) == 2


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        (
            "buyer",
            {"name": "Lisa"},
            "mood.txt, line 1: the variable 'mood' is missing; given: name",
        ),
        ("child", {"who": {}}, "child.j2, line 1: 'dict object' has no attribute 'first'"),
        (
            "letter",
            {"nam": SECRET},
            "letter.mustache, line 1: the variable 'name' is missing; given: nam. Did",
        ),
        (
            "letter",
            {**LETTER, "me": {}},
            "end.mustache, line 1: the variable 'me.first' is missing; given: items, me",
        ),
        ("open", {}, "open.mustache, line 2: {{#a}} has no match"),
        (
            "single",
            {"name": SECRET},
            "single.mustache, line 1: {name} is not a template tag; write {{ name }} for the value, "
            "or rename the variable to send the braces",
        ),
        ("private", {"a": 1}, "private.mustache, line 1: 'a.__class__' is private"),
        (
            "market/spy",
            {"whom": "../buyer.md"},
            "market/spy.md, line 1: '../buyer.md' is not a template's name",
        ),
        ("latin", {}, "the template latin.txt in {} cannot be read: 'utf-8' codec"),
        ("byer", {}, "there is no template 'byer' in {}. Did you mean 'buyer.md'?"),
        *(
            (name, {}, f"{name!r} is not a template's name: it must name a file in {{}}")
            for name in (
                "../buyer",
                "/etc/passwd",
                "market/../buyer",
                "C:/x",
            )
        ),
    ],
)
def test_an_error_in_a_file_names_the_file_and_no_value(
    folder: Path, name: str, variables: dict[str, Any], message: str
) -> None:
    """An error in a part names that part; no name leads out of the folder."""
    with pytest.raises(TemplateError) as caught:
        rendered(None, variables, name, folder)
    assert str(caught.value).startswith(message.replace("{}", str(folder)))
    assert SECRET not in str(caught.value)


def test_a_parameter_in_single_braces_is_an_error() -> None:
    """No template uses it, so the model would read the braces."""
    tag = r"<system>, line 1: \{name\} is not a template tag; write \{\{ name \}\}"
    with pytest.raises(TemplateError, match=tag):

        @llmcall.llm(client=ScriptedClient([]), system="You are {name}.")
        def would_buy(name: str, price: int) -> bool:
            """Would you buy it for {{ price }}?"""
            raise NotImplementedError


def test_single_braces_around_a_parameter_that_a_template_uses_are_sent() -> None:
    """They are meant, as in an example of JSON."""
    client = ScriptedClient(["Yes."])

    @llmcall.llm(client=client)
    def would_sell(name: str, _note: str = "") -> bool:
        """Answer {{ name }} like {"name": "Lisa"} or {name}, {other}."""
        raise NotImplementedError

    assert would_sell("Lisa") is True
    (request,) = client.requests
    assert "{name}, {other}" in request.messages[0]["content"]


def test_braces_that_name_no_variable_are_sent() -> None:
    """Braces that hold no given variable reach the model, and any do that a tag prints."""
    client = ScriptedClient(["Yes."])
    call = LLMCall(user='Write {name} as {"id": 1}, {{ "{age}" }} too.{# {age} #}', client=client)
    call.map([{"age": 3}])
    assert client.requests[0].messages[0]["content"] == 'Write {name} as {"id": 1}, {age} too.'


@pytest.mark.parametrize("name", ["buyer.md", "mood.txt"], ids=["the file", "one that it includes"])
def test_an_edited_file_is_read_again(name: str, folder: Path) -> None:
    """As in a notebook, whose call stays open while its author edits."""
    client = ScriptedClient(lambda messages: messages[0]["content"])
    call = LLMCall(None, "buyer", template_path=folder, client=client)
    (before,) = call.map([{"name": "Lisa", "mood": "good"}])
    (folder / name).write_text("Now {{ mood }}.\n", encoding="utf-8")
    (after,) = call.map([{"name": "Lisa", "mood": "good"}])
    assert "Now good." in after and "Now" not in before


def test_the_method_of_a_dict_that_has_such_a_key_names_the_key() -> None:
    """``values`` is both."""
    persona = {"values": "honesty"}
    with pytest.raises(TemplateError, match=r'for the key, write persona\["values"\]'):
        rendered("{{ persona.values }}", {"persona": persona})
    assert rendered('{{ persona["values"] }}', {"persona": persona}) == "honesty"


@pytest.mark.parametrize(
    "text",
    [
        "{{ said }}",
        "{{ [said] }}",
        "{{ heard }}",
        "{{ said | upper | lower }}",
        "{{ said | upper }}",
    ],
)
def test_words_about_an_address_in_a_text_are_a_text(text: str) -> None:
    """An answer may quote them."""
    said = "it printed <item at 0x7f00>"
    assert said in rendered(text, {"said": said, "heard": {"a": [said]}}).lower()
    assert rendered("{{ said | e }}", {"said": said}) == "it printed &lt;item at 0x7f00&gt;"


def test_mustache_prints_no_address(tmp_path: Path) -> None:
    (tmp_path / "it.mustache").write_text("{{it}}", encoding="utf-8")
    with pytest.raises(TemplateError, match="it prints a object, which has no text"):
        rendered(None, {"it": object()}, "it", tmp_path)


def test_an_edit_of_the_same_length_and_time_is_read_again(folder: Path) -> None:
    """A file system's clock may tick more slowly than an author's script writes."""
    client = ScriptedClient(lambda messages: messages[0]["content"])
    call = LLMCall(None, "mood.txt", template_path=folder, client=client)
    path = folder / "mood.txt"
    path.write_text("Now good.", encoding="utf-8")
    status = path.stat()
    before = call()
    path.write_text("Now evil.", encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (before, call()) == ("Now good.", "Now evil.")
