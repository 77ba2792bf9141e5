"""The files of templates: found by name in a folder, and read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from textwrap import dedent

from ..config.values import nearest
from ..errors import TemplateError

SUFFIXES = ("", ".md", ".txt", ".j2", ".jinja", ".jinja2", ".mustache")  # tried in this order
MUSTACHE_SUFFIXES = ("", ".mustache", *SUFFIXES[1:-1])  # of a partial


def find_template(
    name: str, folder: str | os.PathLike[str], suffixes: tuple[str, ...]
) -> tuple[str, str]:
    """Return the path, below a folder and with its suffix, and the text of a template's file.

    :raises TemplateError: for a name that leads out of the folder, and for a missing file, naming
        the nearest ones.
    """
    segments = os.fspath(name).replace(os.sep, "/").split("/")
    if any(segment in ("", ".", "..") or "\0" in segment or ":" in segment for segment in segments):
        raise TemplateError(
            f"{name!r} is not a template's name: it must name a file in {os.fspath(folder)}"
        )
    for suffix in suffixes:
        path = "/".join(segments) + suffix
        if os.path.isfile(os.path.join(folder, path)):
            return path, _read(path, folder)
    if not os.path.isdir(folder):
        raise TemplateError(
            f"there is no template {name!r} in {os.fspath(folder)}, which is not a folder "
            "(set by template_path= or [Templates] PATH)"
        )
    files = sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    )
    raise TemplateError(
        f"there is no template {name!r} in {os.fspath(folder)}{nearest('/'.join(segments), files)}"
    )


def _read(path: str, folder: str | os.PathLike[str]) -> str:
    """Return the text of a template's file.

    :raises TemplateError: if it cannot be read.
    """
    try:
        with open(os.path.join(folder, path), encoding="utf-8-sig") as file:
            return dedented(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(
            f"the template {path} in {os.fspath(folder)} cannot be read: {error}"
        ) from error


def dedented(text: str) -> str:
    """Return a text without the blank lines around it and without the indentation that all its
    lines share.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return dedent(re.sub(r"\A\s*(?:\n|\Z)|\n\s*\Z", "", text))
