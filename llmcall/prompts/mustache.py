"""Templates in Mustache: strict about missing names, and without HTML escapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, TemplateError
from .template import Template, fixed_texts, missing_variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .template import Load

# The template and its partials: the path and the text of each, by the name in its tag.
Parts = dict[str, tuple[str, str]]


def mustache_template(name: str, text: str, load: Load) -> Template:
    """Compile a Mustache template.

    Its variables include the names inside sections, which an item of the section may give.

    :param load: returns the path and text of a partial.
    :raises TemplateError: for sections that do not match; rendering raises it for a missing
        variable or partial.
    :raises ConfigError: if pystache is not installed.
    """
    parts: Parts = {name: (name, text)}
    tree = _parsed(name, text)
    variables = dict.fromkeys(_names(tree, name, parts, load))
    partials = {tag: source for tag, (_, source) in parts.items()}

    def render(given: Mapping[str, Any]) -> str:
        """Render it with variables."""
        from pystache import Renderer  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pystache.context import KeyNotFoundError  # type: ignore[import-not-found, import-untyped, unused-ignore]

        renderer = Renderer(escape=str, missing_tags="strict", partials=partials)
        try:
            return str(renderer.render(tree, dict(given)))
        except KeyNotFoundError as error:
            raise TemplateError(
                f"{_line_of_tag(parts, error.key)}: {missing_variable(error.key, given)}"
            ) from error

    # pystache shows its tree nowhere else; a test pins the name
    pieces = [node if isinstance(node, str) else "" for node in tree._parse_tree]
    return Template(name, text, variables, render, fixed_texts(pieces))


def _parsed(name: str, source: str) -> Any:
    """Return the tree of a template.

    :raises TemplateError: for sections that do not match.
    :raises ConfigError: if pystache is not installed.
    """
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
        raise TemplateError(
            f"{name}, line {line}: {{{{{info.tag_type}{info.tag_key}}}}} has no match"
        ) from error


def _names(tree: Any, part: str, parts: Parts, load: Load) -> Iterator[str]:
    """Yield the first step of each name in a template and in its partials, and load these into
    ``parts``.

    :param part: the name of the part that the tree belongs to.
    """
    for node in tree._parse_tree:  # pystache shows its tree nowhere else; a test pins these names
        name = getattr(node, "key", ".")
        if type(node).__name__ == "_PartialNode":
            if name not in parts:
                parts[name] = load(name)
                yield from _names(_parsed(*parts[name]), name, parts, load)
        elif any(step.startswith("_") for step in name.split(".")):
            raise TemplateError(f"{_line_of_tag({part: parts[part]}, name)}: {name!r} is private")
        elif name != ".":
            yield name.partition(".")[0]
        inside = getattr(node, "parsed", getattr(node, "parsed_section", None))
        if inside is not None:
            yield from _names(inside, part, parts, load)


def _line_of_tag(parts: Parts, name: str) -> str:
    """Return the path and line of the first tag with a name."""
    tag = re.compile(rf"\{{\{{[{{&#^]?\s*{re.escape(name)}\s*\}}")
    for path, source in parts.values():
        match = tag.search(source)
        if match is not None:
            line = source.count("\n", 0, match.start()) + 1
            return f"{path}, line {line}"
    return next(iter(parts.values()))[0]  # the tag is written between other delimiters
