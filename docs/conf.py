"""Sphinx's settings: `make docs` builds docs/_build/html, without the network."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

import llmcall  # noqa: E402 - found on the path above

project = "llmcall"
author = "the llmcall authors"
copyright = author
release = version = llmcall.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "llms",
    "page_links",
    "public_names",
    "reference_tables",
]
exclude_patterns = ["_build", "_ext"]
default_role = None
# A reference that leads nowhere is a warning. Type variables have no place; the SDK and httpx ship
# no inventory.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r".*\b(Arguments|Result|Value)|Data|Where|Actor"),
    ("py:.*", r"(.*\.)?(Call|Change|Chunks?|ConfiguredClient|Function|Key|Messages|P|Batch)"),
    ("py:.*", r"(.*\.)?(CallPosition|Sends|T)"),
    ("py:.*", r"(httpx|openai)\..*"),
]
highlight_language = "none"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
# What is public of a class is named where it is shown; the fields of a NamedTuple have their words
# in its docstring.
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

# What these pages name of other projects: name, kind and page, from the inventories that Debian
# ships with their documentation. A new name is a line in the file.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.txt"),
    "pandas": ("https://pandas.pydata.org/docs", "inventories/pandas.txt"),
}

html_theme = "furo"
html_title = f"llmcall {release}"
html_static_path = ["pages.css"]
html_css_files = ["pages.css"]
html_show_copyright = False
html_copy_source = False
