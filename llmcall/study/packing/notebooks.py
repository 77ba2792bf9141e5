"""A notebook as the script that nbconvert makes of it."""

from __future__ import annotations

from pathlib import Path

from ...errors import LLMCallError

SUFFIX = ".ipynb"


def as_script(notebook: Path) -> str:
    """Return the Python script that nbconvert makes of a notebook.

    :raises LLMCallError: if nbconvert is not installed.
    """
    try:
        from nbconvert import PythonExporter
    except ModuleNotFoundError as error:
        raise LLMCallError(
            f"to pack {notebook.name}, install nbconvert (the extra 'notebooks'), which makes a script of a notebook"
        ) from error
    script, _ = PythonExporter().from_filename(str(notebook))
    return str(script)
