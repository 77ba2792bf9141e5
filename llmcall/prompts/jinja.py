"""Jinja2 templates: compiled once, rendered in the sandbox, with errors that name template and line but no value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ..errors import TemplateError
from .names import missing_variable

if TYPE_CHECKING:
    import jinja2

__all__ = ["compiled"]

# what an expression in a template raises by itself
_RUNTIME_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def compiled(
    name: str, source: str, load: Callable[[str], tuple[str, str]]
) -> tuple[Iterable[str], Callable[[Mapping[str, Any]], str]]:
    """Compile a template.

    :param name: how errors name it.
    :param source: its text.
    :param load: returns the path and the text of a template that this one includes, by its name; raises
        ``TemplateError`` for a missing one.
    :returns: the variables that it takes, and a function that renders it with variables.
    :raises TemplateError: for a syntax error; the function raises it for a missing variable and any error in rendering.
    """
    if not any(mark in source for mark in ("{{", "{%", "{#")):  # a plain text needs no Jinja2 (30 ms to import)
        return (), lambda variables: source
    place = _Place(name, source, load)
    environment = _environment(place)
    with _explained(place, ()):
        code = environment.compile(source, name, name)
        variables = _variables(environment, place, name, source, {name})
    template = environment.template_class.from_code(environment, code, environment.make_globals(None))

    def render(variables: Mapping[str, Any]) -> str:
        """Render it with variables."""
        with _explained(place, variables):
            return template.render(variables)

    return variables, render


class _Place:
    """Hold the texts of a template and of what it includes, to tell where an error is."""

    def __init__(self, name: str, source: str, load: Callable[[str], tuple[str, str]]) -> None:
        self.name = name
        self.sources = {name: source}
        self._load = load

    def load(self, name: str) -> tuple[str, str]:
        """Return the path and the text of an included template."""
        path, source = self._load(name)
        self.sources[path] = source
        return path, source

    def line(self, error: BaseException) -> str:
        """Return the template and line where an exception arose: the innermost of its traceback."""
        found, trace = self.name, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in self.sources:
                found = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
            trace = trace.tb_next
        return found

    def shown(self, name: Any) -> str:
        """Return a name that stands in the template; one that was computed may be a value, and is not told."""
        is_written = isinstance(name, str) and any(name in source for source in self.sources.values())
        return repr(name) if is_written else "of a computed name"


def _environment(place: _Place) -> jinja2.Environment:
    from jinja2 import FunctionLoader
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def loaded(name: str) -> tuple[str, str, None] | None:
        """Return another template's source as Jinja2 takes it."""
        try:
            path, source = place.load(name)
        except TemplateError:
            return None  # Jinja2 then tries the next name, ignores it as told, or raises TemplateNotFound
        return source, path, None

    # the immutable sandbox also keeps a template from changing the caller's lists and dicts
    environment = ImmutableSandboxedEnvironment(
        undefined=_undefined_type(), loader=FunctionLoader(loaded), finalize=_printable, keep_trailing_newline=True
    )
    del environment.filters["random"], environment.globals["lipsum"]  # the same variables give the same prompt
    return environment


class _UnprintableError(TypeError):
    pass


def _printable(value: Any) -> Any:
    """Refuse to print what Python shows by its address, which is another one in each process."""
    from types import BuiltinFunctionType, FunctionType, MethodType

    kind: Any = type(value)
    if kind.__repr__ is object.__repr__ and kind.__str__ is object.__str__:
        raise _UnprintableError(f"it prints a {kind.__name__}, which has no text of its own (no __str__)")
    if isinstance(value, (BuiltinFunctionType, FunctionType, MethodType)):
        raise _UnprintableError("it prints a function; was a call meant?")
    return value


@lru_cache(maxsize=1)
def _undefined_type() -> type[jinja2.StrictUndefined]:
    from jinja2 import StrictUndefined, UndefinedError
    from jinja2.utils import missing

    class Failure(UndefinedError):
        """Carry the name that is undefined and the type it was sought in, and no value."""

        def __init__(self, hint: str | None, owner: str | None, name: Any, message: str) -> None:
            super().__init__(hint or "undefined")
            self.hint = hint
            self.owner = owner
            self.name = name

    class Undefined(StrictUndefined):
        """Say of a missing variable where it is missing."""

        __slots__ = ()

        def __init__(self, hint: Any = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError) -> None:
            owner = None if obj is missing else type(obj).__name__
            super().__init__(hint, obj, name, partial(Failure, hint, owner, name) if exc is UndefinedError else exc)  # type: ignore[arg-type]

    return Undefined


def _variables(environment: jinja2.Environment, place: _Place, name: str, source: str, seen: set[str]) -> set[str]:
    """List the undeclared variables of a template and of all that it names to include."""
    from jinja2 import meta

    tree = environment.parse(source, name, name)
    found = meta.find_undeclared_variables(tree) | _shadowing(environment, tree)
    for other in meta.find_referenced_templates(tree):
        if other is None or other in seen:
            continue
        seen.add(other)
        try:
            found |= _variables(environment, place, *place.load(other), seen)
        except TemplateError:  # it may be one of several, or optional; if it is needed, rendering reports it
            continue
    return found


def _shadowing(environment: jinja2.Environment, tree: Any) -> set[str]:
    """List the names of Jinja2's own functions (``range``, ``dict``, …) that a template uses as variables."""
    from jinja2 import nodes

    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    names = [node for node in tree.find_all(nodes.Name) if node.ctx == "load" and node.name in environment.globals]
    return {node.name for node in names if id(node) not in called}


@contextmanager
def _explained(place: _Place, given: Iterable[str]) -> Iterator[None]:
    """Raise whatever goes wrong in a template as a ``TemplateError``."""
    import jinja2

    try:
        yield
    except jinja2.TemplateNotFound as error:
        raise TemplateError(f"{place.line(error)}: {_not_found(place, error)}") from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{error.name or place.name}, line {error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise TemplateError(f"{place.line(error)}: {_undefined(place, error, given)}") from error
    except jinja2.TemplateError as error:  # the sandbox's and the filters' own
        problem = "the sandbox forbids this" if type(error).__name__ == "SecurityError" else "it cannot be rendered"
        raise TemplateError(f"{place.line(error)}: {problem}") from error
    except _UnprintableError as error:
        raise TemplateError(f"{place.line(error)}: {error}") from error
    except _RUNTIME_ERRORS as error:
        raise TemplateError(f"{place.line(error)}: an expression raises {type(error).__name__}") from error


def _not_found(place: _Place, error: jinja2.TemplateNotFound) -> str:
    shown = place.shown(error.name)
    if shown != repr(error.name):
        return f"there is no template {shown}"
    try:
        place.load(str(error.name))
    except TemplateError as reason:
        return str(reason)
    return f"there is no template {shown}"


def _undefined(place: _Place, error: Any, given: Iterable[str]) -> str:
    if error.hint:
        return str(error.hint)
    if error.owner is None:
        return missing_variable(str(error.name), given)
    return f"the {error.owner} has no attribute or item {place.shown(error.name)}"
