"""The page of names: every public name, with its parameters and the first sentence of its docstring.

It is text in the repository, for readers of a clone. ``python docs/_ext/names.py`` writes it, and a test compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parent.parent
PAGE = DOCS / "reference" / "names.rst"
HEAD = """\
Names, a sentence each
======================

Every public name, with its parameters. ``help(llmcall.NAME)`` prints the whole docstring, with units and errors.
"""
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")


def page() -> str:
    """Return the page's text."""
    import llmcall
    import llmcall.aio
    import llmcall.testing
    import llmcall.types

    modules = (llmcall, llmcall.types, llmcall.testing, llmcall.aio)
    return HEAD + "".join(line for module in modules for line in _section(module))


def _section(module: ModuleType) -> Iterator[str]:
    title = module.__name__
    yield f"\n{title}\n{'-' * len(title)}\n\n"
    for name in sorted(module.__all__, key=str.casefold):
        value = getattr(module, name)
        if callable(value):
            yield f"``{name}{_parameters(value)}``\n   {_first_sentence(value)}\n"


def _parameters(value: object) -> str:
    """Return a function's parameters in brackets, those with a default in square ones; nothing for a class."""
    if not inspect.isfunction(value):
        return ""
    shown: list[str] = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any("*" in name for name in shown):
            shown.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        is_required = parameter.default is parameter.empty
        shown.append(f"{stars}{parameter.name}" if is_required else f"[{parameter.name}]")
    return f"({', '.join(shown)})"


def _first_sentence(value: object) -> str:
    paragraph = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:])\s", ROLE.sub(r"``\1``", paragraph))[0]
    return f"{sentence.rstrip('.:')}."


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    PAGE.write_text(page(), encoding="utf-8")
