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
Sources = dict[str, tuple[str, str]]


def mustache_template(name: str, text: str, load: Load) -> Template:
    """Compile a Mustache template.

    Its variables include the names inside sections, which an item of the section may give.

    :param load: returns the path and text of a partial.
    :raises TemplateError: for sections that do not match; rendering raises it for a missing
        variable or partial.
    :raises ConfigError: if pystache is not installed.
    """
    sources: Sources = {name: (name, text)}
    tree = _parsed(name, text)
    variables = dict.fromkeys(_names(tree, name, sources, load))
    partials = {tag: source for tag, (_, source) in sources.items()}

    def render(values: Mapping[str, Any]) -> str:
        """Render it with variables."""
        from pystache import Renderer  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pystache.context import KeyNotFoundError  # type: ignore[import-not-found, import-untyped, unused-ignore]

        renderer = Renderer(escape=str, missing_tags="strict", partials=partials)
        try:
            return str(renderer.render(tree, dict(values)))
        except KeyNotFoundError as error:
            raise TemplateError(
                f"{_line_of_tag(sources, error.key)}: {missing_variable(error.key, values)}"
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


def _names(tree: Any, source_name: str, sources: Sources, load: Load) -> Iterator[str]:
    """Yield the first step of each name in a template and in its partials, and load these into
    ``sources``.

    :param source_name: the name of the template or partial that the tree belongs to.
    """
    for node in tree._parse_tree:  # pystache shows its tree nowhere else; a test pins these names
        name = getattr(node, "key", ".")
        if type(node).__name__ == "_PartialNode":
            if name not in sources:
                sources[name] = load(name)
                yield from _names(_parsed(*sources[name]), name, sources, load)
        elif any(step.startswith("_") for step in name.split(".")):
            line = _line_of_tag({source_name: sources[source_name]}, name)
            raise TemplateError(f"{line}: {name!r} is private")
        elif name != ".":
            yield name.partition(".")[0]
        section = getattr(node, "parsed", getattr(node, "parsed_section", None))
        if section is not None:
            yield from _names(section, source_name, sources, load)


def _line_of_tag(sources: Sources, name: str) -> str:
    """Return the path and line of the first tag with a name."""
    tag = re.compile(rf"\{{\{{[{{&#^]?\s*{re.escape(name)}\s*\}}")
    for path, source in sources.values():
        match = tag.search(source)
        if match is not None:
            line = source.count("\n", 0, match.start()) + 1
            return f"{path}, line {line}"
    return next(iter(sources.values()))[0]  # the tag is written between other delimiters
