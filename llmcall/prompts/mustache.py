"""Mustache templates, rendered by pystache: strict about missing names, and without HTML escapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..errors import ConfigError, TemplateError
from .names import missing_variable

__all__ = ["compiled"]


def compiled(
    name: str, source: str, load: Callable[[str], tuple[str, str]]
) -> tuple[Iterable[str], Callable[[Mapping[str, Any]], str]]:
    """Compile a template.

    :param name: how errors name it.
    :param source: its text.
    :param load: returns the path and the text of a partial, by its name; raises ``TemplateError`` for a missing one.
    :returns: the names that it takes (those inside sections too, which an item of the section may give), and a function
        that renders it with variables.
    :raises TemplateError: for sections that do not match; the function raises it for a missing variable, also of a
        section, and for a missing partial.
    :raises ConfigError: where pystache is not installed.
    """
    parts = {name: (name, source)}
    tree = _parsed(name, source)
    variables = set(_names(name, parts, load))
    partials = {key: text for key, (_, text) in parts.items()}

    def render(given: Mapping[str, Any]) -> str:
        """Render it with variables."""
        from pystache import Renderer  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pystache.context import KeyNotFoundError  # type: ignore[import-not-found, import-untyped, unused-ignore]

        renderer = Renderer(escape=str, missing_tags="strict", partials=partials)
        try:
            return str(renderer.render(tree, dict(given)))
        except KeyNotFoundError as error:
            problem = missing_variable(error.key, given)
            raise TemplateError(f"{_place(parts, error.key)}: {problem}") from error
        except RecursionError as error:
            raise TemplateError(f"{name}: its partials include one another without end") from error

    return variables, render


def _parsed(name: str, source: str) -> Any:
    try:
        from pystache.parser import ParsingError, parse  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the template {name} is Mustache, which needs the library pystache (0.6.8 or later; the extra 'mustache')"
        ) from error

    try:
        return parse(source, raise_on_mismatch=True)
    except ParsingError as error:
        info = error.info
        line = source.count("\n", 0, info.position) + 1
        raise TemplateError(f"{name}, line {line}: {{{{{info.tag_type}{info.tag_key}}}}} has no match") from error
    except IndexError as error:
        raise TemplateError(f"{name}: a change of delimiters needs two of them, as in {{{{=<% %>=}}}}") from error


def _names(key: str, parts: dict[str, tuple[str, str]], load: Callable[[str], tuple[str, str]]) -> Iterator[str]:
    """Yield the first steps of all names in a template and in its partials, which are loaded into ``parts``.

    :param parts: the path and the text of each part, by the name in its tag.
    """
    for node in _nodes(_parsed(*parts[key])):
        name = getattr(node, "key", ".")
        if type(node).__name__ == "_PartialNode":
            if name not in parts:
                parts[name] = load(name)
                yield from _names(name, parts, load)
        elif any(step.startswith("_") for step in name.split(".")):
            raise TemplateError(f"{_place({key: parts[key]}, name)}: {name!r} is private")
        elif name != ".":
            yield name.partition(".")[0]


def _nodes(tree: Any) -> Iterator[Any]:
    # pystache shows its tree nowhere else; a test pins these names
    for node in tree._parse_tree:
        yield node
        inside = getattr(node, "parsed", getattr(node, "parsed_section", None))
        if inside is not None:
            yield from _nodes(inside)


def _place(parts: Mapping[str, tuple[str, str]], name: str) -> str:
    """Return the path and line of the first tag that bears a name."""
    tag = re.compile(rf"\{{\{{[{{&#^]?\s*{re.escape(name)}\s*\}}")
    found = [(path, source, match) for path, source in parts.values() if (match := tag.search(source))]
    if not found:  # written between other delimiters
        return next(iter(parts.values()))[0]
    path, source, match = found[0]
    return f"{path}, line {source.count(chr(10), 0, match.start()) + 1}"
