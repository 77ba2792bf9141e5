"""Templates in Jinja2, rendered in its sandbox.

Jinja2 takes 30 ms to import, so this module is imported with the first template that has a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from traceback import walk_tb
from types import BuiltinFunctionType, FunctionType, MethodType

from ..errors import TemplateError
from ..support.libraries import jinja2
from .template import (
    ANY,
    CALL,
    Load,
    MissingCell,
    Template,
    Variables,
    all_variables,
    missing_variable,
    shown_by_address,
)

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
        raise _template_error(error, paths, {}) from error
    # One dict of all globals: Jinja2 copies it for each rendering.
    compiled = environment.template_class.from_code(environment, code, dict(environment.globals))

    def render(values: Mapping[str, object]) -> str:
        """Return the prompt."""
        try:
            return compiled.render(values)
        except (TemplateError, jinja2.TemplateError, *RUNTIME_ERRORS) as error:
            raise _template_error(error, paths, values) from error

    return Template(name, text, variables, render)


def _environment(load: Load, paths: list[str]) -> jinja2.Environment:
    """Return the sandbox.

    :param paths: gets the path of each template that is loaded.
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
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(load_source),
        finalize=_printable,
        keep_trailing_newline=True,
    )
    # The same variables must give the same prompt.
    del environment.filters["random"]
    del environment.globals["lipsum"]
    return environment


class UndefinedCell(MissingCell, jinja2.StrictUndefined):
    """An undefined variable that is also refused within a list, which prints its ``repr``."""

    __slots__ = ("problem",)

    def __init__(self, problem: str) -> None:
        super().__init__(problem, exc=TemplateError)  # type: ignore[arg-type]  # it is only raised
        self.problem = problem

    __repr__ = jinja2.StrictUndefined.__str__


def undefined_cell(column: str, value: object, row: str) -> UndefinedCell:
    """Return the undefined variable for a row's cell that holds nothing.

    :param value: the cell's value, such as NaN.
    :param row: the row, in words.
    """
    noun, remedy = ("variable", "leave it out") if row == CALL else ("column", "drop the row")
    return UndefinedCell(
        f"the {noun} {column!r} holds nothing in {row} ({value!r}): fill it, {remedy}, "
        f"or, in Jinja2, write {{% if {column} is defined %}} or {{{{ {column} | default('…') }}}}"
    )


class _UnprintableError(TypeError):
    """A template's attempt to print a value without a text."""


FUNCTIONS = (BuiltinFunctionType, FunctionType, MethodType)
PLAIN = (int, float, type(None))


@jinja2.pass_context
def _printable(context: jinja2.runtime.Context, value: object) -> object:
    """Return what an expression prints, as text; refuse a memory address, also within a list, a dict or what a
    filter made of it.
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, jinja2.runtime.TemplateReference):
        raise _UnprintableError(
            "it prints Jinja2's own self, not a variable of this name: give that another name"
        )
    if isinstance(value, FUNCTIONS):
        raise _UnprintableError(_function_problem(value, context.get_all()))
    text = str(value)
    if shown := shown_by_address(text, context.get_all):
        raise _UnprintableError(_address_problem(value, shown))
    return text


def _function_problem(function: object, variables: Mapping[str, object]) -> str:
    """Return why a function cannot be printed; a method of a dict may be meant as its key."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", None)
    if isinstance(owner, Mapping) and name in owner:
        variable = next((name for name in variables if variables[name] is owner), "")
        return f'it prints the method {name!r} of a dict; for the key, write {variable}["{name}"]'
    return "it prints a function. Did you mean to call it?"


def _address_problem(value: object, shown: str) -> str:
    """Return why a value cannot be printed that shows a memory address.

    :param shown: the name of the class that is shown by its address.
    """
    if isinstance(value, Iterator):
        kind = type(value).__name__
        return f"it prints a {kind}, which has no text; for its items, add | join(', ')"
    return f"it prints a {shown}, which has no text (no __str__ or __repr__)"


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
        if included_name is None:  # the name is computed
            variables.append({ANY: None})
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
    error: Exception, paths: list[str], variables: Mapping[str, object]
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
    return TemplateError(f"{innermost}: {_problem(error, variables)}")


def _problem(error: Exception, variables: Mapping[str, object]) -> str:
    """Say why a template could not be rendered."""
    if isinstance(error, jinja2.UndefinedError):
        missing = re.fullmatch(r"'(.*)' is undefined", str(error))
        return missing_variable(missing[1], variables) if missing else str(error)
    if isinstance(error, (TemplateError, jinja2.TemplateNotFound, _UnprintableError)):
        return str(error)
    return f"an expression raises {type(error).__name__}"
