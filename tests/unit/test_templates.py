"""Prompts from templates: text, files, the sandbox, and errors that name everything but values."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcall.errors import ConfigError, TemplateError
from llmcall.prompts import Template, dedented

SECRET = "hunter2-hunter2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Hold templates of every kind."""
    files = {
        "buyer.md": "\n    You are {{ name }}.\n      {% include 'mood' %}\n",
        "mood.txt": "You feel {{ mood }}.\n",
        "base.jinja": "Hello. {% block body %}{% endblock %}",
        "child.j2": "{% extends 'base' %}{% block body %}Bye, {{ who.first }}.{% endblock %}",
        "market/day.md": "Day {{ day }}",
        "twice.md": "md",
        "twice.txt": "txt",
        "bom.txt": "\ufeffplain é",
        "letter.mustache": "Dear {{name}} & {{{title}}},\n{{#items}}\n- {{what}}\n{{/items}}\n"
        "{{^items}}nothing\n{{/items}}{{> end}}",
        "end.mustache": "Yours, {{me.first}}",
        "end.md": "no Mustache",
        "open.mustache": "x\n{{#a}}\n",
        "endless.mustache": "{{> endless}}",
        "private.mustache": "\n\nx {{a.__class__}}",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


RENDERED = [
    ("Hi {{ name }}!", {"name": "Lisa"}, "Hi Lisa!"),
    ("\n\n    Hi\n      you\n  \n", {}, "Hi\n  you"),
    ("a\r\nb {{ x }}\r\n", {"x": 1}, "a\nb 1"),
    ("plain }} text", {}, "plain }} text"),
    ("", {}, ""),
    ("{{ a }} {{ b }}", {"a": "{{ b }}", "b": "<i> & {% if %}"}, "{{ b }} <i> & {% if %}"),
    ("{{ x | default('none') }} {{ x is defined }}", {}, "none False"),
    ("{% for x in range(3) %}{{ x }}{% endfor %}", {}, "012"),
    ("{{ range }}", {"range": "5-10"}, "5-10"),
    ("{{ buyer.name }} {{ buyer['age'] }}", {"buyer": {"name": "Lisa", "age": 28}}, "Lisa 28"),
    ("{{ self_name }}{{ price | round(1) }}", {"self_name": "x", "price": 2.25}, "x2.2"),
    ("{{ none }} {{ nothing }}", {"nothing": None}, "None None"),
]


@pytest.mark.parametrize(("text", "variables", "expected"), RENDERED)
def test_renders_text(text: str, variables: dict[str, Any], expected: str) -> None:
    """A text is kept as it is, but for common indentation and the blank lines around it."""
    assert Template.from_text(text).render(**variables) == expected


def test_renders_a_variable_of_any_name() -> None:
    """Columns of a table may be called anything, self among them."""
    assert Template.from_text("{{ text }}{{ name }}").render(**{"self": 1, "text": 2, "name": 3, "a b": 4}) == "23"


FAILURES = [
    ("a\n{{ nmae }}", "<text>, line 2: the variable 'nmae' is missing; given: age, name (the nearest is 'name')"),
    ("{{ zzz }}", "<text>, line 1: the variable 'zzz' is missing; given: age, name"),
    ("{% if zzz %}{% endif %}", "<text>, line 1: the variable 'zzz' is missing; given: age, name"),
    ("{{ name.first }}", "<text>, line 1: the str has no attribute or item 'first'"),
    ("{{ {}[name] }}", "<text>, line 1: the dict has no attribute or item of a computed name"),
    ("\n\n{{ name }}\n{% if %}", "<text>, line 2: Expected an expression, got 'end of statement block'"),
    ("{{ name | upcase }}", "<text>, line 1: No filter named 'upcase'."),
    ("{{ name | random }}", "<text>, line 1: No filter named 'random'."),
    ("{{ name + 1 }}", "<text>, line 1: an expression raises TypeError"),
    ("{{ age / 0 }}", "<text>, line 1: an expression raises ZeroDivisionError"),
    ("{{ 'x' | int + name | first | float + age.real('x') }}", "<text>, line 1: an expression raises TypeError"),
    ("{% macro r() %}{{ r() }}{% endmacro %}{{ r() }}", "<text>, line 1: an expression raises RecursionError"),
    ("{{ [] | first }}", "<text>, line 1: No first item, sequence was empty."),
    (
        "{% include 'x' %}",
        "<text>, line 1: a template given as text has no folder to take 'x' from; put it into a file",
    ),
    ("{% include name %}", "<text>, line 1: there is no template of a computed name"),
    ("{{ name.upper }}", "<text>, line 1: it prints a function; was a call meant?"),
    ("{{ lipsum() }}", "<text>, line 1: the variable 'lipsum' is missing; given: age, name"),
]


@pytest.mark.parametrize(("text", "message"), FAILURES)
def test_errors_name_template_and_line(text: str, message: str) -> None:
    """Whatever goes wrong in a template is a TemplateError that tells where, and no value."""
    with pytest.raises(TemplateError) as caught:
        Template.from_text(text).render(name=SECRET, age=3)
    assert str(caught.value) == message
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is not None


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ x | attr(y) }}",
    "{{ x[y] }}",
    "{{ f.__globals__ }}",
    "{{ x.format(f) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ given.append(1) }}",
    "{{ given.clear() }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_sandbox_refuses_escapes(text: str) -> None:
    """No template reaches into Python or changes what it is given."""
    given_list = [1]
    with pytest.raises(TemplateError, match=r"^<text>, line 1: the sandbox forbids this$"):
        Template.from_text(text).render(x="{0.__class__}", y="__class__", f=dedented, given=given_list)
    assert given_list == [1]


def test_prints_no_addresses() -> None:
    """An object without a text of its own would give another prompt in each process."""
    with pytest.raises(TemplateError, match="it prints a object, which has no text of its own"):
        Template.from_text("{{ it }}").render(it=object())


def test_an_error_of_the_callers_object_passes() -> None:
    """What a variable's own method raises beside the usual is the caller's, and is not hidden."""

    class Broken:
        def __str__(self) -> str:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Template.from_text("{{ it }}").render(it=Broken())


VARIABLES = [
    ("plain", set()),
    ("{{ a.b }} {% set c = d %}{{ c }}{% for e in f %}{{ e }}{{ loop.index }}{% endfor %}", {"a", "d", "f"}),
    ("{% for i in range(3) %}{{ i }}{% endfor %}{{ dict(a=1) }}", set()),
    ("{{ range }} {{ range(3) }}", {"range"}),
    ("{% if a is defined %}{{ b | default(c) }}{% endif %}", {"a", "b", "c"}),
]


@pytest.mark.parametrize(("text", "names"), VARIABLES)
def test_knows_its_variables(text: str, names: set[str]) -> None:
    """The names that a template takes are known before it is rendered."""
    assert Template.from_text(text).variables == names


def test_many_given_names_are_not_all_listed() -> None:
    """A table with hundreds of columns does not fill the message."""
    columns = {f"column_{index:03}": index for index in range(300)}
    with pytest.raises(TemplateError, match=r"given: .*column_019 and 280 more \(the nearest is .column_0\d\d.\)$"):
        Template.from_text("{{ colum_010 }}").render(**columns)


@given(st.text(), st.text())
def test_values_are_never_templates(first: str, second: str) -> None:
    """A value comes out as it went in, whatever it looks like."""
    assert Template.from_text("{{ a }}|{{ b }}").render(a=first, b=second) == f"{first}|{second}"


@given(st.text(alphabet="ab \n\t{}", max_size=30))
def test_dedent_keeps_the_words(text: str) -> None:
    """Only blanks go, and doing it twice changes nothing."""
    assert dedented(text).split() == text.split()
    assert dedented(dedented(text)) == dedented(text)


FILES = [
    ("buyer", {"name": "Lisa", "mood": "well"}, "You are Lisa.\n  You feel well."),
    ("buyer.md", {"name": "Lisa", "mood": "well"}, "You are Lisa.\n  You feel well."),
    ("child", {"who": {"first": "Ann"}}, "Hello. Bye, Ann."),
    ("market/day", {"day": 3}, "Day 3"),
    ("twice", {}, "md"),
    ("bom", {}, "plain é"),
    (
        "letter",
        {"name": "<A>", "title": "{{name}}", "items": [{"what": 1}, {"what": "&"}], "me": {"first": "B"}},
        "Dear <A> & {{name}},\n- 1\n- &\nYours, B",
    ),
    ("letter", {"name": "A", "title": "T", "items": [], "me": {"first": "B"}}, "Dear A & T,\nnothing\nYours, B"),
]


@pytest.mark.parametrize(("name", "variables", "expected"), FILES)
def test_renders_files(folder: Path, name: str, variables: dict[str, Any], expected: str) -> None:
    """A file is found with or without suffix, and what it includes beside it."""
    assert Template.from_file(name, folder).render(**variables) == expected


def test_files_know_the_variables_of_their_parts(folder: Path) -> None:
    """Included, extended and partial templates count."""
    assert Template.from_file("buyer", folder).variables == {"name", "mood"}
    assert Template.from_file("child", folder).variables == {"who"}
    assert Template.from_file("letter", folder).variables == {"name", "title", "items", "what", "me"}


FILE_FAILURES = [
    ("buyer", {"name": "Lisa"}, "mood.txt, line 1: the variable 'mood' is missing; given: name"),
    ("child", {"who": {}}, "child.j2, line 1: the dict has no attribute or item 'first'"),
    (
        "letter",
        {"nam": SECRET},
        "letter.mustache, line 1: the variable 'name' is missing; given: nam (the nearest is 'nam')",
    ),
    (
        "letter",
        {"name": SECRET, "title": 1, "items": [], "me": {}},
        "end.mustache, line 1: the variable 'me.first' is missing; given: items, me, name, title",
    ),
    ("open", {}, "open.mustache, line 2: {{#a}} has no match"),
    ("endless", {}, "endless.mustache: its partials include one another without end"),
    ("private", {"a": 1}, "private.mustache, line 1: 'a.__class__' is private"),
]


@pytest.mark.parametrize(("name", "variables", "message"), FILE_FAILURES)
def test_errors_name_the_file(folder: Path, name: str, variables: dict[str, Any], message: str) -> None:
    """An error in a part names that part, and no value."""
    with pytest.raises(TemplateError) as caught:
        Template.from_file(name, folder).render(**variables)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["../buyer", "/etc/passwd", "market/../buyer", "", ".", "market//day", "C:/x", "buyer\0", "./buyer"]
)
def test_names_do_not_leave_the_folder(folder: Path, name: str) -> None:
    """A template's name is a path under the folder and nothing else."""
    with pytest.raises(TemplateError, match="is no template's name"):
        Template.from_file(name, folder / "market")


def test_includes_do_not_leave_the_folder(folder: Path) -> None:
    """A part is sought under the folder too."""
    (folder / "market" / "spy.md").write_text("{% include '../buyer.md' %}")
    with pytest.raises(TemplateError, match=r"spy.md, line 1: '../buyer.md' is no template's name"):
        Template.from_file("spy", folder / "market").render()


def test_optional_parts_may_be_missing(folder: Path) -> None:
    """Jinja2's ways to do without a part work."""
    (folder / "optional.md").write_text("a{% include 'x' ignore missing %}{% include ['y', 'twice'] %}")
    assert Template.from_file("optional", folder).render() == "amd"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("byer", "; the nearest: buyer.md"),
        ("twise.md", "; the nearest: twice.md, twice.txt"),
        ("qqqqqq", ", nor one of a like"),
    ],
)
def test_a_missing_file_names_the_nearest(folder: Path, name: str, problem: str) -> None:
    """The error names the folder and what it holds of a like name."""
    with pytest.raises(TemplateError) as caught:
        Template.from_file(name, folder)
    assert str(caught.value).startswith(f"there is no template {name!r} in {folder}{problem}")


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """Where the folder is missing, the error says what names it."""
    with pytest.raises(TemplateError, match=r"which is no folder \(template_path= and \[Templates\] PATH name it\)"):
        Template.from_file("buyer", tmp_path / "missing")


def test_an_unreadable_file_is_a_template_error(folder: Path) -> None:
    """A file that is no UTF-8 is named."""
    (folder / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(TemplateError, match=r"the template latin\.txt in .* cannot be read: .*utf-8"):
        Template.from_file("latin", folder)


def test_mustache_without_its_library_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the library and the extra."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pystache"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match=r"letter\.mustache is Mustache, which needs the library pystache .*'mustache'"
    ):
        Template.from_file("letter", folder)


def test_plain_text_imports_no_jinja() -> None:
    """A text without marks costs no import."""
    code = "import sys; from llmcall.prompts import Template; Template.from_text('a').render(); "
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "llmcall.prompts" in done.stdout.split()
    assert "jinja2" not in done.stdout.split()


def test_repr_names_the_template() -> None:
    """A template shows its name, not its text."""
    assert repr(Template.from_text("x {{ y }}", name="<system>")) == "Template('<system>')"
