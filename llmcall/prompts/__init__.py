"""Prompts from templates: Jinja2 in its sandbox, or Mustache.

A template's text stays as it is, except for the blank lines around it and the indentation that all
its lines share. A missing variable is an error, never an empty string, and a variable's text is
never rendered as a template. An error names the template and the line. It shows no values, except
the name of a template that is looked up by a value.
"""

from .compiling import file_template, text_template
from .template import Template, Variables, all_variables

__all__ = ["Template", "Variables", "all_variables", "file_template", "text_template"]
