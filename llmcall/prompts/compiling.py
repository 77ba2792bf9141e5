"""Compile a template that is given as text or as a file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..errors import TemplateError
from .files import MUSTACHE_SUFFIXES, SUFFIXES, dedented, find_template
from .jinja import jinja_template
from .mustache import mustache_template

if TYPE_CHECKING:
    import os

    from .template import Template


def text_template(text: str, name: str) -> Template:
    """Compile a Jinja2 template given as text.

    :param text: the template itself; it cannot include others.
    :param name: of the template in errors.
    :raises TemplateError: for a syntax error, naming the line (counted from the first that is not
        blank).
    """
    return jinja_template(name, dedented(text), _no_file)


def file_template(name: str, folder: str | os.PathLike[str]) -> Template:
    """Read and compile the template in a file; it includes and extends files of the same folder.

    :param name: the file's path below the folder; without suffix, ``.md``, ``.txt``, ``.j2``,
        ``.jinja``, ``.jinja2`` and ``.mustache`` are tried in this order. A file that ends in
        ``.mustache`` is rendered as Mustache (the extra ``mustache``), any other as Jinja2.
    :param folder: of the templates; nothing outside it is read.
    :raises TemplateError: for a missing file, naming the folder and the nearest files, and for a
        syntax error.
    :raises ConfigError: if the library for Mustache is missing.
    """
    path, text = find_template(name, folder, SUFFIXES)
    if path.endswith(".mustache"):
        load = partial(find_template, folder=folder, suffixes=MUSTACHE_SUFFIXES)
        return mustache_template(path, text, load)
    return jinja_template(path, text, partial(find_template, folder=folder, suffixes=SUFFIXES))


def _no_file(name: str) -> tuple[str, str]:
    """Refuse to load a template that a text includes."""
    raise TemplateError(
        f"a template given as text cannot include {name!r}, since it has no folder; put it into a file"
    )
