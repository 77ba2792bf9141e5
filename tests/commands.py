"""The command line, run in this process: the one place of the tests that names where it is; and
files for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from llmcall.cli.main import main
from llmcall.config.resolve import refresh


def run(*arguments: Any, text: str | None = None) -> Result:
    """Run ``llmcall`` with arguments, and with a text as its standard input."""
    refresh()  # a process of its own would read environment and files
    return CliRunner().invoke(main, [*map(str, arguments)], input=text)


def done(*arguments: Any, code: int = 0, text: str | None = None) -> str:
    """Run it likewise, check how it ends, and return what it printed."""
    result = run(*arguments, text=text)
    assert result.exit_code == code, result.output
    return result.output


def cache(*arguments: Any, **options: Any) -> str:
    """Run ``llmcall cache`` likewise."""
    return done("cache", *arguments, **options)


def written(name: str | Path, text: str | bytes) -> str:
    """Write a file that a command or the settings read, below the working directory, and return its
    path.
    """
    path = Path.cwd() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)
