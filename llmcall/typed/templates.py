"""The templates of a call, one for each message: texts, or files in a folder.

Blank lines around a template, and the indentation that all its lines share, are removed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import TemplateError
from ..support.arguments import nearest
from ..support.display import as_json
from ..support.system import unwatched
from .template import (
    Load,
    MissingCell,
    Template,
    Variables,
    all_variables,
    missing_variable,
    mustache_template,
)

if TYPE_CHECKING:
    from ..keys.request import Data


class History(NamedTuple):
    """Worked examples, or a conversation so far.

    :param examples: messages; the texts of their contents are templates.
    :param variable: the name of the variable that holds a conversation, or ``None``.
    """

    examples: tuple[Mapping[str, object], ...] = ()
    variable: str | None = None

    def conversation(self, variables: Mapping[str, object]) -> list[dict[str, Data]]:
        """Return the conversation in the variable.

        :raises TemplateError: if the variable is missing.
        :raises TypeError: if it is not a list of messages.
        """
        if self.variable is None:
            return []
        if isinstance(variables.get(self.variable, MissingCell()), MissingCell):
            raise TemplateError(f"history: {missing_variable(self.variable, variables)}")
        return list(_messages(variables[self.variable], f"the variable {self.variable!r}"))


def _messages(value: object, name: str) -> Data:
    if not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{name} is {type(value).__name__}; it must be a list of messages, such as "
            "{'role': 'user', 'content': 'Bread?'}"
        )
    for position, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TypeError(
                f"{name}[{position}] is {message!r:.60}; it must be a message, a dict with a role and a content"
            )
    return value


T = TypeVar("T")

MUSTACHE = ".mustache"
_SUFFIXES = ("", ".md", ".txt", ".j2", ".jinja", ".jinja2", MUSTACHE)  # tried in this order
# Jinja2's tags, and a name in single braces, as in an f-string
_BRACES = re.compile(
    r"\{\{.*?\}\} | \{%.*?%\} | \{\#.*?\#\} | \{\s*(?P<name>[^\W\d]\w*)\b[^{}\n]*\}",
    re.DOTALL | re.VERBOSE,
)


class TemplateSource(NamedTuple):
    """The source of a template: a file or a text.

    :param file_name: the file's name below the folder of the templates, or ``None``.
    :param text: the template itself, or ``None``.
    """

    file_name: str | None
    text: str | None

    def compile(self, role: str, folder: str, files: dict[str, bytes]) -> Template:
        """Compile the template as Jinja2, or in the language of its file's suffix.

        :param role: the role of the message; errors name a text by it.
        :param folder: the folder of the files; nothing outside it is read.
        :param files: gets the contents of each file that is read.
        :raises TemplateError: for a missing file, with the folder and the nearest files, and for a
            syntax error.
        """
        if self.file_name is None:
            return _jinja_template(f"<{role}>", _dedented(self.text or ""), _no_file)
        find = partial(_find_template, folder=folder, suffixes=_SUFFIXES, files=files)
        path, text = find(self.file_name)
        if not path.endswith(MUSTACHE):
            return _jinja_template(path, text, find)
        # First its own suffix, for the files that it includes.
        return mustache_template(path, text, partial(find, suffixes=("", MUSTACHE, *_SUFFIXES)))


def checked_sources(sources: Mapping[str, TemplateSource]) -> dict[str, TemplateSource]:
    """Return the sources that have a template, by the role of their message.

    :raises TypeError: if a template is given twice, or no template is given.
    """
    present = {role: source for role, source in sources.items() if source != (None, None)}
    for role, source in present.items():
        if source.file_name is not None and source.text is not None:
            raise TypeError(
                f"the {role} template is given twice, as the file {source.file_name!r} and as text; give "
                "one of them"
            )
    if not present:
        raise TypeError("LLMCall needs a template: give a file name, or text as system= or user=")
    return present


def checked_history(history: object, sources: Mapping[str, TemplateSource]) -> History:
    """Return the history of a call.

    :param history: a list of messages, the name of a variable, ``None`` or a history.
    :param sources: the templates' sources, by the role of their message.
    :raises TypeError: if it is anything else, or no question follows.
    """
    if isinstance(history, History):
        checked = history
    elif isinstance(history, str):
        checked = History(variable=history)
    else:
        messages = () if history is None else _messages(history, "history")
        checked = History(tuple(map(dict, messages)))
    if checked != History() and "user" not in sources:
        raise TypeError(
            "history= holds the messages before a question: add the question as user= or user_template_name="
        )
    return checked


class Templates(NamedTuple):
    """The compiled templates of a call.

    :param messages: the messages, with templates for texts. The last one is the question.
    :param history: names the variable with the conversation before the question, if there is one.
    :param variables: the names that the templates use.
    :param brace_errors: by each name in single braces that is not a variable, the error to raise.
    :param texts: the templates of further texts that the question gets: a choice's options.
    :param files: the contents of the files that were read.
    :param digest: of the texts of the templates, and of the files that they include.
    :param folder: the folder of the files.
    """

    messages: tuple[Mapping[str, object], ...]
    history: History
    variables: Variables
    brace_errors: Mapping[str, str]
    texts: tuple[Template, ...] = ()
    files: Mapping[str, bytes] = {}
    digest: str = ""
    folder: str = ""

    @classmethod
    def compile(
        cls,
        sources: Mapping[str, TemplateSource],
        history: History,
        folder: str,
        texts: Mapping[str, str] = {},
    ) -> Templates:
        """Compile the templates of a call.

        :param sources: the templates' sources, by the role of their message.
        :param history: the messages before the last one.
        :param folder: the folder of the files.
        :param texts: the templates of further texts, by the name that errors give them.
        :raises TemplateError: for a missing file and for a syntax error.
        """
        files: dict[str, bytes] = {}
        *system, question = [
            {"role": role, "content": source.compile(role, folder, files)}
            for role, source in sources.items()
        ]
        examples = [_example(message, number) for number, message in enumerate(history.examples)]
        messages: tuple[Mapping[str, object], ...] = (*system, *examples, question)
        further = tuple(_jinja_template(f"<{name}>", texts[name], _no_file) for name in texts)
        templates = [*_templates_in(messages), *further]
        uses = [template.variables for template in templates]
        if history.variable is not None:
            uses.append({history.variable: None})
        variables = all_variables(uses)
        errors = _brace_errors(templates, variables)
        read = [_dedented(text.decode("utf-8-sig", "replace")) for text in files.values()]
        hashed = as_json([[template.text for template in templates], read])
        digest = hashlib.sha256(hashed.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(messages, history, variables, errors, further, files, digest, folder)

    def are_current(self) -> bool:
        """Return whether no file was edited since it was read."""
        # Time and size would miss an edit of the same length within a tick of the file system's clock.
        with suppress(OSError), unwatched():  # where it fails, compiling it again says why
            return all(Path(path).read_bytes() == contents for path, contents in self.files.items())
        return False

    def refuse_single_braces(self, names: Iterable[str]) -> None:
        """Refuse ``{name}`` where ``{{ name }}`` is meant: the model would read the braces.

        :param names: the variables that have values.
        :raises TemplateError: with the template, the line and the variable.
        """
        for name in names:
            if name in self.brace_errors:
                raise TemplateError(self.brace_errors[name])

    def render(self, variables: Mapping[str, object]) -> list[dict[str, object]]:
        """Return the messages.

        :raises TemplateError: if a variable is missing.
        """
        self.refuse_single_braces(variables)
        *others, question = [
            _with_texts(message, lambda template: template.render(variables))
            for message in self.messages
        ]
        conversation = self.history.conversation(variables)
        if others and conversation and conversation[0]["role"] == "system":
            del conversation[0]  # the call has its own system message
        return [*others, *conversation, question]

    def rendered_variables(self, variables: Mapping[str, object]) -> Variables:
        """Return the variables of the templates, and of all files that they have read with this prompt."""
        self.render(variables)
        names = [Path(path).relative_to(self.folder).as_posix() for path in self.files]
        read = [TemplateSource(name, None).compile("", self.folder, {}) for name in names]
        return all_variables([self.variables, *(template.variables for template in read)])

    def used(self, variables: Mapping[str, object]) -> dict[str, object]:
        """Return the variables that the templates use and that hold something."""
        return {
            name: value
            for name, value in variables.items()
            if name in self.variables and not isinstance(value, MissingCell)
        }

    def without_conversation(self, messages: Sequence[T]) -> Sequence[T]:
        """Return a prompt's messages without the conversation in a variable."""
        return [*messages[: len(self.messages) - 1], messages[-1]]


def _example(message: Mapping[str, object], number: int) -> dict[str, object]:
    """Return a worked example with templates for texts."""
    name = f"history[{number}]"
    return _with_texts(message, lambda text: TemplateSource(None, text).compile(name, "", {}))


def _with_texts(message: Mapping[str, Data], change: Callable[[Data], object]) -> dict[str, object]:
    """Return a message with its text, or the texts of its parts, changed; they are strings or templates."""
    content = message.get("content")
    if isinstance(content, (str, Template)):
        return {**message, "content": change(content)}
    if not isinstance(content, (list, tuple)):
        return dict(message)
    parts = [
        {**part, "text": change(part["text"])}
        if isinstance(part, Mapping) and isinstance(part.get("text"), (str, Template))
        else part
        for part in content
    ]
    return {**message, "content": parts}


def _templates_in(messages: Iterable[Mapping[str, object]]) -> list[Template]:
    """Return the templates in messages, in order."""
    templates: list[Template] = []
    for message in messages:
        _with_texts(message, templates.append)
    return templates


def _jinja_template(name: str, text: str, load: Load) -> Template:
    """Compile a Jinja2 template, without Jinja2 if the text has none of its tags."""
    if not any(mark in text for mark in ("{{", "{%", "{#")):
        return Template(name, text, {}, lambda variables: text)
    from .jinja import jinja_template

    return jinja_template(name, text, load)


def _brace_errors(templates: Iterable[Template], variables: Variables) -> dict[str, str]:
    """Return an error for each name in single braces, outside Jinja2's tags, that is not a variable."""
    errors: dict[str, str] = {}
    for template in templates:
        for match in _BRACES.finditer(template.text):
            name = match["name"]
            if name is None or name in variables:
                continue
            line = template.text.count("\n", 0, match.start()) + 1
            is_mustache = template.name.endswith(MUSTACHE)  # which prints no texts
            way = "rename the variable" if is_mustache else f'{{{{ "{{{name}}}" }}}}'
            errors.setdefault(
                name,
                f"{template.name}, line {line}: {match[0]} is not a template tag; "
                f"write {{{{ {name} }}}} for the value, or {way} to send the braces",
            )
    return errors


def _no_file(name: str) -> tuple[str, str]:
    raise TemplateError(
        f"a template given as text cannot include {name!r}, because it has no folder; put it into a file"
    )


@unwatched()
def _find_template(
    name: str, folder: str, suffixes: tuple[str, ...], files: dict[str, bytes]
) -> tuple[str, str]:
    """Return the path below a folder, with its suffix, and the text of a template's file.

    :param files: gets the file's contents.
    """
    segments = os.fspath(name).replace(os.sep, "/").split("/")
    if any(segment in ("", ".", "..") or "\0" in segment or ":" in segment for segment in segments):
        raise TemplateError(f"{name!r} is not a template's name: it must name a file in {folder}")
    for suffix in suffixes:
        path = "/".join(segments) + suffix
        full_path = os.path.join(folder, path)
        if os.path.isfile(full_path):
            try:
                with open(full_path, "rb") as file:
                    files[full_path] = contents = file.read()
                return path, _dedented(contents.decode("utf-8-sig"))
            except (OSError, UnicodeDecodeError) as error:
                raise TemplateError(
                    f"the template {path} in {folder} cannot be read: {error}"
                ) from error
    if not os.path.isdir(folder):
        raise TemplateError(
            f"there is no template {name!r}: {folder} is not a folder (set template_path= or [Templates] PATH)"
        )
    names = sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    )
    raise TemplateError(
        f"there is no template {name!r} in {folder}{nearest('/'.join(segments), names)}"
    )


def _dedented(text: str) -> str:
    """Return a text without the blank lines around it and its lines' common indentation."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return dedent(re.sub(r"\A\s*(?:\n|\Z)|\n\s*\Z", "", text))
