"""Sphinx's settings: `make docs` builds docs/_build/html, without the network."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

import llmcall  # noqa: E402

project = "llmcall"
author = "the llmcall authors"
copyright = author
release = version = llmcall.__version__

extensions = ["sphinx.ext.autodoc", "reference_tables"]
exclude_patterns = ["_build", "_ext"]
default_role = None
nitpicky = False
highlight_language = "none"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
# What is public of a class is named where it is shown; the fields of a NamedTuple have their words in its docstring.
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"llmcall {release}"
html_static_path = []
html_show_copyright = False
html_copy_source = False
