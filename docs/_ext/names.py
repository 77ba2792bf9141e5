"""The page of names: every public name, with its parameters and the first sentence of its docstring; the names
that features add to ``llmcall`` and ``llmcall.types``; and the settings that they add.

All are text in the repository, for readers of a clone and type checkers. ``python docs/_ext/names.py`` writes them, and
a test compares.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcall.config.setting import Setting

DOCS = Path(__file__).resolve().parent.parent
PAGE = DOCS / "reference" / "names.rst"
PACKAGE = DOCS.parent / "llmcall"
# By the module that features add names to: the field of a feature that has them.
EXPORTING = {"__init__.py": "names", "types.py": "types", "aio.py": "aio"}
OF_FEATURES = re.compile(r"(?s)(# What features add: .*?\n).*?(# The end of what features add\.)")
SETTINGS = "config/settings.py"  # features add attributes to its class
CONFIG_FILE = DOCS.parent / "config.ini"
HEAD = """\
Names, a sentence each
======================

Every public name, with its parameters. ``help(llmcall.NAME)`` prints the whole docstring, with units and errors.
"""
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")


def with_exports(module: str) -> str:
    """Return the text of a module of ``EXPORTING``, with the names that features add."""
    from llmcall.additions import additions

    text = (PACKAGE / module).read_text(encoding="utf-8")
    added = sorted(additions(EXPORTING[module]).items())
    imports = [
        f"    from .{place} import {name} as {name}\n"
        for place, names in added
        for name in names.split()
    ]
    for_checkers = f"if TYPE_CHECKING:\n{''.join(imports)}\n" if imports else ""
    rows = "".join(f'    "{place}": "{names}",\n' for place, names in added)
    table = f"_OF_FEATURES: dict[str, str] = {{{rows and chr(10)}{rows}}}\n"
    return OF_FEATURES.sub(lambda match: match[1] + for_checkers + table + match[2], text)


def with_settings() -> str:
    """Return the text of the module of settings, with the types of those that features add."""
    from llmcall.config.settings import SETTINGS as rows

    text = (PACKAGE / SETTINGS).read_text(encoding="utf-8")
    added = (f"{row.name}: {type_of(row)}\n    " for row in rows.values() if row.comment)
    return OF_FEATURES.sub(lambda match: f"{match[1]}    {''.join(added)}{match[2]}", text)


def type_of(row: Setting) -> str:
    """Return the type of a setting's values; of one without a default, the type of what it makes of a digit."""
    from llmcall.errors import ConfigError

    if row.default is not None:
        return type(row.default).__name__
    try:
        return f"{type(row.parse('1', row.name)).__name__} | None"
    except ConfigError:  # it is one of several words, or an address
        return "str | None"


def config_file() -> str:
    """Return the text of the top-level config.ini, with the settings that features add at the end of their section."""
    from llmcall.config.settings import SETTINGS as rows

    text = CONFIG_FILE.read_text(encoding="utf-8")
    own = {(row.section, row.key): row for row in rows.values() if row.key}
    added: dict[str, str] = {}
    for (section, key), row in own.items():
        if row.comment:
            default = "" if row.default is None else row.default
            if isinstance(default, bool):
                default = "yes" if default else "no"
            line = f"# {row.comment}\n{key} = {default}".rstrip()
            added[section] = f"{added.get(section, '')}{line}\n"
    head, *sections = re.split(r"(?m)^(?=\[)", text)
    for place, block in enumerate(sections):
        title, _, body = block.partition("\n")
        section = title.strip("[]")
        if section not in {row.section for row in rows.values()}:  # of a feature that is gone
            sections[place] = ""
            continue

        def kept(match: re.Match[str], section: str = section) -> str:
            row = own.get((section, match[1]))
            return "" if row is None or row.comment else match[0]

        entries, blank, rest = body.partition("\n\n")
        entries = re.sub(r"(?m)^# .*\n([A-Z_]+) =.*\n", kept, f"{entries}\n" if blank else body)
        sections[place] = f"{title}\n{entries}{added.pop(section, '')}{blank[1:]}{rest}"
    new = "".join(f"\n[{section}]\n{lines}" for section, lines in added.items())
    return f"{head}{''.join(sections)}".rstrip() + f"\n{new}"


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
    exports = {PACKAGE / module: with_exports(module) for module in EXPORTING}
    exports[PACKAGE / SETTINGS] = with_settings()
    exports |= {CONFIG_FILE: config_file()}
    for path, text in exports.items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            os.execv(sys.executable, [sys.executable, *sys.argv])  # the old one is imported
    PAGE.write_text(page(), encoding="utf-8")
