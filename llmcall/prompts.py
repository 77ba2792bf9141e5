"""Render prompts from templates: Jinja2 in its sandbox, or Mustache.

A template's text stays as it is, except for the blank lines around it and the indentation that all
its lines share. A missing variable is an error, never an empty string, and a variable's text is
never rendered as a template. An error names the template and the line. It shows no values, except
the name of a template that is looked up by a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from traceback import walk_tb
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from .config.values import nearest
from .display.formatting import shortened
from .errors import ConfigError, TemplateError

if TYPE_CHECKING:
    import jinja2

SUFFIXES = ("", ".md", ".txt", ".j2", ".jinja", ".jinja2", ".mustache")  # tried in this order
MUSTACHE_SUFFIXES = ("", ".mustache", *SUFFIXES[1:-1])  # of a partial
# Raised by expressions in templates.
RUNTIME_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

# from the name of an included template to its path and text
Load = Callable[[str], tuple[str, str]]
Render = Callable[[Mapping[str, Any]], str]
# The names that a template takes. Each has the fields that are used of it; None if all of it is.
Variables = Mapping[str, "frozenset[str] | None"]


class Template(NamedTuple):
    """A compiled prompt.

    :param name: the file's path below its folder, or the name given to a text.
    :param text: the template itself.
    :param variables: the names that the template and its includes take, except for includes with a
        computed name. Each has the fields that are used of it, or ``None`` if all of it is used.
    :param render: returns the prompt for the values of variables; it accepts more variables than
        the template takes. It raises a ``TemplateError`` for a missing variable and for any error in
        the template, naming template and line (counted from the first that is not blank). The cause
        is the template engine's own error.
    :param fixed: the texts that every rendering has, in order; each rendering begins with the first,
        which may be empty.
    """

    name: str
    text: str
    variables: Variables
    render: Render
    fixed: tuple[str, ...] = ("",)

    def may_have_made(self, text: str) -> bool:
        """Return whether a text has the fixed texts of a rendering."""
        if not text.startswith(self.fixed[0]):
            return False
        end = len(self.fixed[0])
        for piece in self.fixed[1:]:
            begin = text.find(piece, end)
            if begin < 0:
                return False
            end = begin + len(piece)
        return True


def text_template(text: str, name: str) -> Template:
    """Compile a Jinja2 template given as text.

    :param text: the template itself; it cannot include others.
    :param name: of the template in errors.
    :raises TemplateError: for a syntax error, naming the line (counted from the first that is not
        blank).
    """
    text = dedented(text)
    return Template(name, text, *_jinja(name, text, _no_file))


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
    path, text = _found(name, folder, SUFFIXES)
    engine, suffixes = (
        (_mustache, MUSTACHE_SUFFIXES) if path.endswith(".mustache") else (_jinja, SUFFIXES)
    )
    return Template(
        path, text, *engine(path, text, partial(_found, folder=folder, suffixes=suffixes))
    )


def dedented(text: str) -> str:
    """Return a text without the blank lines around it and without the indentation that all its
    lines share.
    """
    from textwrap import dedent

    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return dedent(re.sub(r"\A\s*(?:\n|\Z)|\n\s*\Z", "", text))


def _no_file(name: str) -> tuple[str, str]:
    raise TemplateError(
        f"a template given as text cannot include {name!r}, since it has no folder; put it into a file"
    )


def _found(name: str, folder: str | os.PathLike[str], suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Return the path, below a folder and with its suffix, and the text of a template's file.

    :raises TemplateError: for a name that leads out of the folder, and for a missing file, naming
        the nearest ones.
    """
    steps = os.fspath(name).replace(os.sep, "/").split("/")
    if any(step in ("", ".", "..") or "\0" in step or ":" in step for step in steps):
        raise TemplateError(
            f"{name!r} is not a template's name: it must name a file in {os.fspath(folder)}"
        )
    for suffix in suffixes:
        path = "/".join(steps) + suffix
        if os.path.isfile(os.path.join(folder, path)):
            return path, _read(path, folder)
    if not os.path.isdir(folder):
        place = f"{os.fspath(folder)}, which is not a folder (set by template_path= or [Templates] PATH)"
        raise TemplateError(f"there is no template {name!r} in {place}")
    files = sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    )
    raise TemplateError(
        f"there is no template {name!r} in {os.fspath(folder)}{nearest('/'.join(steps), files)}"
    )


def _read(path: str, folder: str | os.PathLike[str]) -> str:
    try:
        with open(os.path.join(folder, path), encoding="utf-8-sig") as file:
            return dedented(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(
            f"the template {path} in {os.fspath(folder)} cannot be read: {error}"
        ) from error


def _missing(name: str, given: Iterable[str]) -> str:
    """Return a message about a missing variable, with the given ones and the nearest of them."""
    names = sorted(given)
    shown = shortened(", ".join(names) or "none", 300)  # a table may have hundreds of columns
    return f"the variable {name!r} is missing; given: {shown}{nearest(name, names)}"


# Jinja2


def all_variables(found: Iterable[Variables]) -> Variables:
    """Return the variables of several templates together."""
    union: dict[str, frozenset[str] | None] = {}
    for variables in found:
        for name, fields in variables.items():
            before = union.get(name, frozenset())
            union[name] = None if before is None or fields is None else before | fields
    return union


def _jinja(name: str, source: str, load: Load) -> tuple[Variables, Render, tuple[str, ...]]:
    """Compile a Jinja2 template, and return its variables, a function that renders it, and its fixed
    texts.

    :raises TemplateError: for a syntax error; rendering raises it for a missing variable and any
        other error.
    """
    if not any(mark in source for mark in ("{{", "{%", "{#")):
        # A plain text does not need Jinja2, which takes 30 ms to import.
        return {}, lambda variables: source, (source,)
    from jinja2 import TemplateError as JinjaError

    paths = [name]  # of the template and its includes, to find the place of an error
    environment = _environment(load, paths)
    try:
        code = environment.compile(source, name, name)
        variables = _jinja_variables(environment, name, source, {name})
        fixed = _fixed_texts(environment, source)
    except (JinjaError, *RUNTIME_ERRORS) as error:
        raise _explained(error, paths, ()) from error
    # All that a template finds by a name, in one dict: Jinja2 copies it for each rendering.
    template = environment.template_class.from_code(environment, code, dict(environment.globals))

    def render(given: Mapping[str, Any]) -> str:
        """Render it with variables."""
        try:
            return template.render(given)
        except (JinjaError, *RUNTIME_ERRORS) as error:
            raise _explained(error, paths, given) from error

    return variables, render, fixed


def _fixed_texts(environment: jinja2.Environment, source: str) -> tuple[str, ...]:
    """Return the texts outside all tags of a template, in their order; see :class:`Template`."""
    from jinja2 import nodes

    pieces = []
    for node in environment.parse(source).body:
        parts: list[nodes.Node] = list(node.nodes) if isinstance(node, nodes.Output) else [node]
        for part in parts:
            pieces.append(part.data if isinstance(part, nodes.TemplateData) else "")
    return _without_gaps(pieces)


def _without_gaps(pieces: list[str]) -> tuple[str, ...]:
    """Return the texts among some pieces, and before them an empty one if the first piece is none."""
    return (*pieces[:1], *filter(None, pieces[1:])) if pieces else ("",)


def _environment(load: Load, paths: list[str]) -> jinja2.Environment:
    """Return the sandbox.

    :param paths: takes the path of each template that is loaded.
    """
    from jinja2 import FunctionLoader, StrictUndefined, TemplateNotFound
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def loaded(name: str) -> tuple[str, str, None]:
        """Return another template's source in Jinja2's form."""
        try:
            path, source = load(name)
        except TemplateError as error:  # Jinja2 tries the next name, or ignores a missing one
            raise TemplateNotFound(name, str(error)) from error
        paths.append(path)
        return source, path, None

    # The immutable sandbox also keeps a template from changing the caller's lists and dicts.
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        loader=FunctionLoader(loaded),
        finalize=_printable,
        keep_trailing_newline=True,
    )
    # The same variables must give the same prompt.
    del environment.filters["random"]
    del environment.globals["lipsum"]
    return environment


class _UnprintableError(TypeError):
    pass


def _printable(value: Any) -> Any:
    """Refuse to print an object that Python shows by its address, which differs in each process."""
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__ and kind.__str__ is object.__str__:
        raise _UnprintableError(f"it prints a {kind.__name__}, which has no text (no __str__)")
    if isinstance(value, (BuiltinFunctionType, FunctionType, MethodType)):
        raise _UnprintableError("it prints a function; did you mean to call it?")
    return value


def _jinja_variables(
    environment: jinja2.Environment, name: str, source: str, seen: set[str]
) -> Variables:
    """Return the undeclared variables of a template and of the includes that it names."""
    from jinja2 import TemplateNotFound, meta, nodes

    tree = environment.parse(source, name, name)
    # Jinja2's own functions (range, dict, …) are declared, and may yet be used as variables.
    names = meta.find_undeclared_variables(tree) | environment.globals.keys()
    fields = {id(each.node): each.attr for each in tree.find_all(nodes.Getattr)}
    used = [
        (node.name, fields.get(id(node)))
        for node in tree.find_all(nodes.Name)
        if node.name in names
    ]
    found: list[Variables] = [
        {name: None if field is None else frozenset((field,))} for name, field in used
    ]
    for other in meta.find_referenced_templates(tree):
        if other is None or other in seen:
            continue
        seen.add(other)
        try:
            text, path, _ = environment.loader.get_source(environment, other)  # type: ignore[union-attr]
            found.append(_jinja_variables(environment, path or other, text, seen))
        except TemplateNotFound:
            continue  # it may be one of several or optional; rendering reports it if it is needed
    return all_variables(found)


def _explained(error: Exception, paths: list[str], given: Iterable[str]) -> TemplateError:
    """Return the error that names what went wrong in a template, and its line.

    :param paths: of the template, then of its includes.
    """
    import jinja2

    missing = (
        re.fullmatch(r"'(.*)' is undefined", str(error))
        if isinstance(error, jinja2.UndefinedError)
        else None
    )
    if isinstance(error, jinja2.TemplateSyntaxError):
        return TemplateError(f"{error.name or paths[0]}, line {error.lineno}: {error.message}")
    if missing:
        problem = _missing(missing[1], given)
    elif isinstance(error, (jinja2.UndefinedError, jinja2.TemplateNotFound, _UnprintableError)):
        problem = str(error)
    elif isinstance(error, jinja2.TemplateError):  # the sandbox's and the filters' own
        problem = (
            "the sandbox forbids this"
            if type(error).__name__ == "SecurityError"
            else "it cannot be rendered"
        )
    else:
        problem = f"an expression raises {type(error).__name__}"
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    innermost = [f"{path}, line {line}" for path, line in places if path in paths][-1:] or paths
    return TemplateError(f"{innermost[0]}: {problem}")


# Mustache


def _mustache(name: str, source: str, load: Load) -> tuple[Variables, Render, tuple[str, ...]]:
    """Compile a Mustache template: strict about missing names, and without HTML escapes.

    :returns: as :func:`_jinja` does, including the names inside sections, which an item of the
        section may give.
    :raises TemplateError: for sections that do not match; rendering raises it for a missing
        variable or partial.
    :raises ConfigError: if pystache is not installed.
    """
    parts = {name: (name, source)}
    tree = _parsed(name, source)
    variables: Variables = dict.fromkeys(_mustache_names(tree, name, parts, load))
    partials = {key: text for key, (_, text) in parts.items()}

    def render(given: Mapping[str, Any]) -> str:
        """Render it with variables."""
        from pystache import Renderer  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pystache.context import KeyNotFoundError  # type: ignore[import-not-found, import-untyped, unused-ignore]

        try:
            return str(
                Renderer(escape=str, missing_tags="strict", partials=partials).render(
                    tree, dict(given)
                )
            )
        except KeyNotFoundError as error:
            raise TemplateError(
                f"{_line_of_tag(parts, error.key)}: {_missing(error.key, given)}"
            ) from error

    # pystache shows its tree nowhere else; a test pins the name
    pieces = [node if isinstance(node, str) else "" for node in tree._parse_tree]
    return variables, render, _without_gaps(pieces)


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
        raise TemplateError(
            f"{name}, line {line}: {{{{{info.tag_type}{info.tag_key}}}}} has no match"
        ) from error


def _mustache_names(
    tree: Any, key: str, parts: dict[str, tuple[str, str]], load: Load
) -> Iterator[str]:
    """Yield the first step of each name in a template and in its partials, and load these into
    ``parts``.

    :param key: the name of the part that the tree belongs to.
    :param parts: the path and the text of each part, by the name in its tag.
    """
    for node in tree._parse_tree:  # pystache shows its tree nowhere else; a test pins these names
        name = getattr(node, "key", ".")
        if type(node).__name__ == "_PartialNode":
            if name not in parts:
                parts[name] = load(name)
                yield from _mustache_names(_parsed(*parts[name]), name, parts, load)
        elif any(step.startswith("_") for step in name.split(".")):
            raise TemplateError(f"{_line_of_tag({key: parts[key]}, name)}: {name!r} is private")
        elif name != ".":
            yield name.partition(".")[0]
        inside = getattr(node, "parsed", getattr(node, "parsed_section", None))
        if inside is not None:
            yield from _mustache_names(inside, key, parts, load)


def _line_of_tag(parts: Mapping[str, tuple[str, str]], name: str) -> str:
    """Return the path and line of the first tag with a name."""
    tag = re.compile(rf"\{{\{{[{{&#^]?\s*{re.escape(name)}\s*\}}")
    found = [
        (path, source, match) for path, source in parts.values() if (match := tag.search(source))
    ]
    if not found:  # written between other delimiters
        return next(iter(parts.values()))[0]
    path, source, match = found[0]
    return f"{path}, line {source.count(chr(10), 0, match.start()) + 1}"
