"""Names of templates and of their variables: where a file is, and what to say of a name that is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import TemplateError

__all__ = ["MUSTACHE_SUFFIXES", "SUFFIXES", "find", "missing_variable"]

SUFFIXES = ("", ".md", ".txt", ".j2", ".jinja", ".jinja2", ".mustache")  # tried in this order
MUSTACHE_SUFFIXES = ("", ".mustache", *SUFFIXES[1:-1])  # of a partial
_SHOWN_NAMES = 20  # in an error message; a table may have hundreds of columns


def find(name: str, folder: str | os.PathLike[str], suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """Return the path under a folder, suffix included, of the file that a template's name means.

    :param name: a path under the folder, its steps separated by ``/``, with or without suffix.
    :raises TemplateError: for a name that leads out of the folder, and for a missing file, naming the nearest.
    """
    steps = os.fspath(name).replace(os.sep, "/").split("/")
    if any(step in ("", ".", "..") or "\0" in step or ":" in step for step in steps):
        raise TemplateError(f"{name!r} is no template's name: it must name a file under {os.fspath(folder)}")
    for suffix in suffixes:
        path = "/".join(steps) + suffix
        if os.path.isfile(os.path.join(folder, path)):
            return path
    raise TemplateError(
        f"there is no template {name!r} in {os.fspath(folder)}{_nearest_files('/'.join(steps), folder)}"
    )


def missing_variable(name: str, given: Iterable[str]) -> str:
    """Say that a variable is missing, which given one is nearest to it, and which are given."""
    from difflib import get_close_matches

    names = sorted(given)
    nearest = get_close_matches(name, names, 1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    more = f" and {len(names) - _SHOWN_NAMES} more" if names[_SHOWN_NAMES:] else ""
    return f"the variable {name!r} is missing{hint}; given: {', '.join(names[:_SHOWN_NAMES]) or 'none'}{more}"


def _nearest_files(name: str, folder: str | os.PathLike[str]) -> str:
    from difflib import get_close_matches

    if not os.path.isdir(folder):
        return ", which is no folder (template_path= and [Templates] PATH name it)"
    files = sorted(
        os.path.relpath(os.path.join(place, file), folder).replace(os.sep, "/")
        for place, _, found in os.walk(folder)
        for file in found
    )
    names = {os.path.splitext(file)[0]: file for file in files} | {file: file for file in files}
    nearest = dict.fromkeys(names[close] for close in get_close_matches(name, names, 6))
    return (
        f"; the nearest: {', '.join(list(nearest)[:3])}"
        if nearest
        else f", nor one of a like name among its {len(files)}"
    )
