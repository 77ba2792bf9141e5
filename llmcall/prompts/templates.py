"""Prompts from templates: Jinja2 in its sandbox, or Mustache.

A template's text is kept as it is, but for the blank lines around it and the indentation that all its lines share. A
variable that is missing is an error, never an empty string; a variable's own text is never rendered as a template.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import TemplateError
from . import jinja, mustache
from .names import MUSTACHE_SUFFIXES, SUFFIXES, find

__all__ = ["Template", "dedented"]


class Template:
    """Render one prompt.

    :ivar name: the file's path under its folder, or the name given to a text.
    :ivar variables: the names that the template takes, those of its includes among them; not of what it includes by a
        computed name.
    """

    __slots__ = ("_render", "name", "variables")

    def __init__(self, name: str, variables: Iterable[str], render: Callable[[Mapping[str, Any]], str]) -> None:
        self.name = name
        self.variables = frozenset(variables)
        self._render = render

    @classmethod
    def from_text(cls, text: str, *, name: str = "<text>") -> Template:
        """Make a template of a Jinja2 text.

        :param text: the template itself; it can include no other.
        :param name: how errors name it.
        :raises TemplateError: for a syntax error, naming the line (counted from the first that is not blank).
        """
        return cls(name, *jinja.compiled(name, dedented(text), _no_file))

    @classmethod
    def from_file(cls, name: str, folder: str | os.PathLike[str]) -> Template:
        """Make a template of a file, read now; what it includes or extends is sought in the same folder.

        :param name: the file's path under the folder; without suffix, ``.md``, ``.txt``, ``.j2``, ``.jinja``,
            ``.jinja2`` and ``.mustache`` are tried in this order. A file that ends in ``.mustache`` is rendered as
            Mustache (the extra ``mustache``), any other as Jinja2.
        :param folder: where the templates are; nothing outside it is read.
        :raises TemplateError: for a missing file, naming the folder and the nearest files, and for a syntax error.
        :raises ConfigError: where the library for Mustache is missing.
        """

        def load(other: str) -> tuple[str, str]:
            """Return another file's path and text."""
            path = find(other, folder, suffixes)
            return path, _source(path, folder)

        compiled, suffixes = jinja.compiled, SUFFIXES
        path, source = load(name)
        if path.endswith(".mustache"):
            compiled, suffixes = mustache.compiled, MUSTACHE_SUFFIXES
        return cls(path, *compiled(path, source, load))

    def render(self, /, **variables: Any) -> str:
        """Return the prompt.

        :param variables: what the template takes; more than it takes is no error.
        :raises TemplateError: for a missing variable and for any error in the template, naming template and line
            (counted from the first that is not blank) and no variable's value; its cause is what the engine raised.
        """
        return self._render(variables)

    def __repr__(self) -> str:
        return f"Template({self.name!r})"


def dedented(text: str) -> str:
    """Return a text without the blank lines around it and without the indentation that all its lines share."""
    from textwrap import dedent

    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    filled = [index for index, line in enumerate(lines) if line.strip()]
    return dedent("\n".join(lines[filled[0] : filled[-1] + 1])) if filled else ""


def _source(path: str, folder: str | os.PathLike[str]) -> str:
    try:
        with open(os.path.join(folder, path), encoding="utf-8-sig") as file:
            return dedented(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"the template {path} in {os.fspath(folder)} cannot be read: {error}") from error


def _no_file(name: str) -> tuple[str, str]:
    raise TemplateError(f"a template given as text has no folder to take {name!r} from; put it into a file")
