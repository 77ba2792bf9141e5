"""The command line, run in this process: the one place of the tests that names where it is."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from llmcall.cli.main import main


def run(*arguments: Any, text: str | None = None) -> Result:
    """Run ``llmcall`` with arguments, and with a text as its standard input."""
    return CliRunner().invoke(main, [*map(str, arguments)], input=text)


def done(*arguments: Any, code: int = 0, text: str | None = None) -> str:
    """Run it likewise, check how it ends, and return what it printed."""
    result = run(*arguments, text=text)
    assert result.exit_code == code, result.output
    return result.output


def cache(*arguments: Any, **options: Any) -> str:
    """Run ``llmcall cache`` likewise."""
    return done("cache", *arguments, **options)
