"""One template, and those in Mustache: strict about missing names, and without HTML escapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import NamedTuple

from ..errors import ConfigError, TemplateError
from ..support.arguments import nearest
from ..support.data import Data
from ..support.display import shortened

Render = Callable[[Mapping[str, Data]], str]
# By the name of a variable that a template uses, the fields used of it, or None for all of it
Variables = Mapping[str, "frozenset[str] | None"]
ANY = "*"  # stands for the variables of includes with a computed name
CALL = "this call"  # the row of a call's variables, in words
# Returns the path and text of an included template, by its name
Load = Callable[[str], tuple[str, str]]


class MissingCell:
    """The value of a variable whose cell in a frame holds nothing; templates see an undefined one.

    :ivar problem: the column and the row, in words.
    """

    __slots__ = ()
    problem: str


class Template(NamedTuple):
    """A compiled prompt.

    :param name: the file's path below its folder, or the name given to a text.
    :param text: the template itself.
    :param variables: the variables that the template and its includes use; ``ANY`` with an include of a
        computed name.
    :param render: returns the prompt for the values of variables; it accepts more variables than the
        template uses. It raises a ``TemplateError`` with the template and the line (counted from the
        first that is not blank) for a missing variable and for any error in the template. The cause
        is the template engine's own error.
    """

    name: str
    text: str
    variables: Variables
    render: Render


def all_variables(templates: Iterable[Variables]) -> Variables:
    """Return the variables of several templates together."""
    union: dict[str, frozenset[str] | None] = {}
    for variables in templates:
        for name, fields in variables.items():
            earlier_fields = union.get(name, frozenset())
            if earlier_fields is None or fields is None:
                union[name] = None
            else:
                union[name] = earlier_fields | fields
    return union


def missing_variable(name: str, variables: Mapping[str, object]) -> str:
    """Return a message about a missing variable: the cell that it is, or the names of the others and the
    nearest one.
    """
    if isinstance(cell := variables.get(name), MissingCell):
        return cell.problem
    sorted_names = sorted(variables)
    # a table may have hundreds of columns
    name_list = shortened(", ".join(sorted_names) or "none", 300)
    return f"the variable {name!r} is missing; given: {name_list}{nearest(name, sorted_names)}"


# Python shows an object without a text of its own by its address: each process would send another prompt.
# A filter may have changed the case, or escaped the brackets.
ADDRESS = re.compile(r"(\w*)(?:>|&gt;)?(?: object)? at 0x[0-9a-f]+(?:>|&gt;|;)", re.IGNORECASE)


def shown_by_address(text: str, variables: Callable[[], Mapping[str, object]]) -> str:
    """Return the class that a text shows by its memory address; empty without one, and if a variable, such as
    a quoted answer, has these words.

    :param variables: returns the variables from which it was made.
    """
    found = ADDRESS.search(text) if "0x" in text.lower() else None
    if found is None:
        return ""
    shown = found[0].lower().replace("&gt;", ">")
    if any(shown in known.lower() for known in _texts(variables(), set())):
        return ""
    return found[1] or "object"


def _texts(value: object, seen: set[int]) -> Iterator[str]:
    """Yield the texts in a value."""
    if isinstance(value, str):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        inner = value if isinstance(value, Iterable) and isinstance(value, Sized) else ()
        parts = value.items() if isinstance(value, Mapping) else inner
        for part in (*parts, *getattr(value, "__dict__", {}).values()):
            yield from _texts(part, seen)


# The path and text of the template and its partials, by the name in the tag
Sources = dict[str, tuple[str, str]]

_TAG = re.compile(r"\{\{\{?\s*(?P<kind>[&#^/>!=]?)\s*(?P<name>.*?)\s*\}?\}\}", re.DOTALL)


def mustache_template(name: str, text: str, load: Load) -> Template:
    """Compile a Mustache template.

    Its variables include the names inside sections, whose values may come from an item of the section.

    :param load: returns the path and text of a partial.
    :raises TemplateError: for sections that do not match, and for other delimiters; ``render`` raises
        it for a missing variable.
    :raises ConfigError: if pystache is not installed.
    """
    sources: Sources = {name: (name, text)}
    variables = dict.fromkeys(_variable_names(name, sources, load))
    partials = {tag: source for tag, (_, source) in sources.items()}
    tree = _parse(name, text)

    def render(values: Mapping[str, object]) -> str:
        """Return the prompt."""
        from ..support.libraries import pystache

        defined = {
            name: values[name] for name in values if not isinstance(values[name], MissingCell)
        }
        renderer = pystache.Renderer(escape=str, missing_tags="strict", partials=partials)
        try:
            prompt = str(renderer.render(tree, defined))
        except pystache.context.KeyNotFoundError as error:
            raise TemplateError(
                f"{_first_location(sources, error.key)}: {missing_variable(error.key, values)}"
            ) from error
        if shown := shown_by_address(prompt, lambda: {**defined, "": text}):
            raise TemplateError(f"{name}: it prints a {shown}, which has no text (no __str__)")
        return prompt

    return Template(name, text, variables, render)


def _parse(path: str, source: str) -> object:
    """Return the tree of a template."""
    try:
        from ..support.libraries import pystache
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the template {path} is Mustache, which needs the library pystache (0.6.8 or later; the extra 'mustache')"
        ) from error
    try:
        return pystache.parser.parse(source, raise_on_mismatch=True)
    except pystache.parser.ParsingError as error:
        info = error.info
        tag = f"{{{{{info.tag_type}{info.tag_key}}}}}"
        raise TemplateError(
            f"{_location(path, source, info.position)}: {tag} has no match"
        ) from error


def _variable_names(name: str, sources: Sources, load: Load) -> Iterator[str]:
    """Yield the first step of each name in a template and its partials, which are loaded into
    ``sources``.
    """
    path, source = sources[name]
    _parse(path, source)
    for match in _TAG.finditer(source):
        kind, tag = match.groups()
        if kind == "=":
            location = _location(path, source, match.start())
            raise TemplateError(f"{location}: only the delimiters {{{{ and }}}} can be used")
        if kind == ">" and tag not in sources:
            sources[tag] = load(tag)
            yield from _variable_names(tag, sources, load)
        elif kind in ("", "&", "#", "^") and tag != ".":
            if any(step.startswith("_") for step in tag.split(".")):
                raise TemplateError(f"{_location(path, source, match.start())}: {tag!r} is private")
            yield tag.partition(".")[0]


def _first_location(sources: Sources, name: str) -> str:
    """Return the path and line of the first tag with a name."""
    tag = re.compile(rf"\{{\{{[{{&#^]?\s*{re.escape(name)}\s*\}}")
    for path, source in sources.values():
        match = tag.search(source)
        if match is not None:
            return _location(path, source, match.start())
    return next(iter(sources.values()))[0]


def _location(path: str, source: str, position: int) -> str:
    line = source.count("\n", 0, position) + 1
    return f"{path}, line {line}"
