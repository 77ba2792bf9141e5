"""Templates in Jinja2, rendered in its sandbox.

Jinja2 takes 30 ms to import, so this module is imported with the first template that has a tag.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from traceback import walk_tb
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from ..errors import TemplateError
from ..support.libraries import jinja2
from .template import Template, all_variables, missing_variable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .template import Load, Variables

# The variable by which a watching template gets what it watches; no template can name it
WATCH = "llmcall watch"
# What Jinja2's filters without an argument make of a value that is no number
FROM_NOTHING = {"int": "0", "float": "0.0"}
# What expressions in templates raise
RUNTIME_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def jinja_template(name: str, text: str, load: Load) -> Template:
    """Compile a Jinja2 template.

    :param load: returns the path and text of an included template.
    :raises TemplateError: for a syntax error; ``render`` raises it for a missing variable and any
        other error.
    """
    paths = [name]  # of the template and its includes, to find where an error occurred
    environment = _environment(load, paths)
    try:
        code = environment.compile(text, name, name)
        variables = _variables(environment, name, text, {name})
    except (jinja2.TemplateError, *RUNTIME_ERRORS) as error:
        raise _template_error(error, paths, ()) from error
    # One dict of all globals: Jinja2 copies it for each rendering.
    compiled = environment.template_class.from_code(environment, code, dict(environment.globals))

    def render(values: Mapping[str, object]) -> str:
        """Return the prompt."""
        try:
            return compiled.render(values)
        except (jinja2.TemplateError, *RUNTIME_ERRORS) as error:
            raise _template_error(error, paths, values) from error

    watching = cache(lambda: _environment(load, paths, is_watching=True).from_string(text))

    def printed(values: Mapping[str, object], names: Collection[str]) -> dict[str, str]:
        """Return the texts as which values that hold nothing are shown, by name."""
        shown: dict[str, str] = {}
        empty = {
            name: re.compile(rf"(?<!\w){re.escape(str(values[name]))}(?!\w)") for name in names
        }
        with suppress(jinja2.TemplateError, *RUNTIME_ERRORS):  # ``render`` raises it
            watching().render({**values, WATCH: (empty, shown)})
        return shown

    return Template(name, text, variables, render, printed)


def _environment(load: Load, paths: list[str], *, is_watching: bool = False) -> jinja2.Environment:
    """Return the sandbox.

    :param paths: gets the path of each template that is loaded.
    :param is_watching: whether its templates note which variables they print.
    """

    def load_source(name: str) -> tuple[str, str, None]:
        """Return another template's source in Jinja2's form."""
        try:
            path, source = load(name)
        except TemplateError as error:  # Jinja2 tries the next name, or ignores a missing one
            raise jinja2.TemplateNotFound(name, str(error)) from error
        paths.append(path)
        return source, path, None

    # The immutable sandbox also keeps a template from changing the caller's lists and dicts.
    sandbox = WatchingSandbox if is_watching else jinja2.sandbox.ImmutableSandboxedEnvironment
    environment = sandbox(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(load_source),
        finalize=_printable,
        keep_trailing_newline=True,
    )
    # The same variables must give the same prompt.
    del environment.filters["random"]
    del environment.globals["lipsum"]
    return environment


class WatchingSandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox whose templates note which variables they print, each with the expression that
    prints it. Only a template that runs knows: it may test a variable, and not print it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters["watch"] = _watch

    def compile(self, source: Any, name: Any = None, *options: Any, **more: Any) -> Any:
        """Compile a template whose printed expressions are watched."""
        tree = self.parse(source, name)
        for output in tree.find_all(jinja2.nodes.Output):
            output.nodes = [_watched(node) for node in output.nodes]
        return super().compile(tree, name, *options, **more)


@jinja2.pass_context
def _watch(
    context: jinja2.runtime.Context, value: object, names: Collection[str], shown_as: str | None
) -> object:
    """Note a variable that holds nothing, if its text is in an expression's.

    :param shown_as: the text that is printed in its place, if it is another one.
    """
    empty, shown = context.get(WATCH, ({}, {}))
    for name in names:
        if name in empty and (found := empty[name].search(str(value))):
            shown[name] = found[0] if shown_as is None else shown_as
    return value


def _watched(expression: jinja2.nodes.Expr) -> jinja2.nodes.Expr:
    """Return an expression that is watched: of two, the one that is printed."""
    if isinstance(expression, jinja2.nodes.TemplateData):
        return expression
    if isinstance(expression, jinja2.nodes.CondExpr):
        expression.expr1 = _watched(expression.expr1)
        expression.expr2 = expression.expr2 and _watched(expression.expr2)
        return expression
    output = jinja2.nodes.Output([expression])
    for node in output.find_all(jinja2.nodes.Filter):
        if node.name in FROM_NOTHING and not node.args and not node.kwargs and node.node:
            node.node = _watch_call(node.node, FROM_NOTHING[node.name])
    return _watch_call(expression)


def _watch_call(expression: jinja2.nodes.Expr, shown_as: str | None = None) -> jinja2.nodes.Filter:
    output = jinja2.nodes.Output([expression])
    names = sorted({node.name for node in output.find_all(jinja2.nodes.Name)})
    arguments: list[jinja2.nodes.Expr] = [
        jinja2.nodes.Const(tuple(names)),
        jinja2.nodes.Const(shown_as),
    ]
    return jinja2.nodes.Filter(expression, "watch", arguments, [], None, None)


class _UnprintableError(TypeError):
    """A template prints a value that has no text."""


def _printable(value: object) -> object:
    """Refuse to print an object that Python shows by its address: each process would send another
    prompt.
    """
    value_type: Any = type(value)
    if value_type.__repr__ is object.__repr__ and value_type.__str__ is object.__str__:
        raise _UnprintableError(
            f"it prints a {value_type.__name__}, which has no text (no __str__)"
        )
    if isinstance(value, (BuiltinFunctionType, FunctionType, MethodType)):
        raise _UnprintableError("it prints a function; did you mean to call it?")
    if isinstance(value, jinja2.runtime.TemplateReference):
        raise _UnprintableError(
            "it prints Jinja2's own self, not a variable of this name: give that another name"
        )
    return value


def _variables(
    environment: jinja2.Environment, name: str, source: str, visited_names: set[str]
) -> Variables:
    """Return the undeclared variables of a template and of the includes that it names.

    :param visited_names: the templates that were searched; gets the names of the includes.
    """
    tree = environment.parse(source, name, name)
    # Jinja2 declares its own functions (range, dict, …), but a variable may have such a name, too.
    undeclared = jinja2.meta.find_undeclared_variables(tree) | environment.globals.keys()
    fields = {id(node.node): node.attr for node in tree.find_all(jinja2.nodes.Getattr)}
    variables: list[Variables] = []
    for node in tree.find_all(jinja2.nodes.Name):
        if node.name in undeclared:
            field = fields.get(id(node))
            variables.append({node.name: None if field is None else frozenset((field,))})
    for included_name in jinja2.meta.find_referenced_templates(tree):
        if included_name is None or included_name in visited_names:
            continue
        visited_names.add(included_name)
        try:
            text, path, _ = environment.loader.get_source(environment, included_name)  # type: ignore[union-attr]
            variables.append(_variables(environment, path or included_name, text, visited_names))
        except jinja2.TemplateNotFound:
            continue  # it may be one of several or optional; rendering reports it if it is needed
    return all_variables(variables)


def _template_error(
    error: Exception, paths: list[str], variable_names: Iterable[str]
) -> TemplateError:
    """Return an error that names the template or include, the line and the problem."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return TemplateError(f"{error.name or paths[0]}, line {error.lineno}: {error.message}")
    lines = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename in paths
    ]
    innermost = lines[-1] if lines else paths[0]
    return TemplateError(f"{innermost}: {_problem(error, variable_names)}")


def _problem(error: Exception, variable_names: Iterable[str]) -> str:
    """Return in words why a template could not be rendered."""
    if isinstance(error, jinja2.UndefinedError):
        missing = re.fullmatch(r"'(.*)' is undefined", str(error))
        return missing_variable(missing[1], variable_names) if missing else str(error)
    if isinstance(error, (jinja2.TemplateNotFound, _UnprintableError)):
        return str(error)
    if not isinstance(error, jinja2.TemplateError):
        return f"an expression raises {type(error).__name__}"
    if type(error).__name__ == "SecurityError":
        return "the sandbox forbids this"
    return "it cannot be rendered"  # the filters' own errors
