"""A notebook as the script that nbconvert makes of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from jsonschema import ValidationError

from ...errors import LLMCallError

SUFFIX = ".ipynb"
OUTPUTS = re.compile(r'"outputs":\s*\[\s*[^\s\]]')  # of a cell, if there are any


def as_script(notebook: Path) -> str:
    """Return the Python script that nbconvert makes of a notebook.

    :raises LLMCallError: if nbconvert is not installed, the file is not a notebook, or its script is
        not plain Python.
    """
    try:
        from nbconvert import PythonExporter
    except ModuleNotFoundError as error:
        raise LLMCallError(
            f"to pack {notebook.name}, install nbconvert (the extra 'notebooks'), which makes a script of a notebook"
        ) from error
    try:
        exported, _ = PythonExporter().from_filename(str(notebook))
    except (ValidationError, ValueError) as error:
        raise LLMCallError(f"{notebook.name} is not a notebook: {error}") from error
    script = str(exported)
    _check_plain(notebook.name, script)
    return script


def has_outputs(notebook: Path) -> bool:
    """Return whether a notebook's file contains outputs of its cells."""
    return OUTPUTS.search(notebook.read_text(encoding="utf-8", errors="replace")) is not None


def _check_plain(name: str, script: str) -> None:
    """Check that a notebook's script runs without IPython.

    :raises LLMCallError: if it does not.
    """
    remedy = "remove commands of IPython (with % or !) and every await outside a function"
    try:
        compile(script, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise LLMCallError(
            f"{name} is not plain Python: {line!r} ({error.msg}); {remedy}"
        ) from error
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("get_ipython()."):
            raise LLMCallError(f"{name} is not plain Python: {ast.unparse(node)!r}; {remedy}")
