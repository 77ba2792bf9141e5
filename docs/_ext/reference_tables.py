"""Directives that show what the code says of itself: `settings-table` and `command-help`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from pathlib import Path

import click
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.util.docutils import SphinxDirective

from llmcall.cli.main import main
from llmcall.config.setting import Setting
from llmcall.config.settings import SETTINGS
from llmcall.config.sources import NAMED_SECTIONS

CONFIG_FILE = Path(__file__).parents[2] / "config.ini"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], widths: Iterable[int]) -> nodes.table:
    """Return a table; what stands between backticks in a cell is set as code."""
    widths = list(widths)
    group = nodes.tgroup(cols=len(widths))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *map(_row, rows))
    return nodes.table("", group)


def _row(cells: Iterable[str]) -> nodes.row:
    return nodes.row(
        "", *(nodes.entry("", nodes.paragraph("", "", *_inline(cell))) for cell in cells)
    )


def _inline(cell: str) -> Iterator[nodes.Node]:
    for number, part in enumerate(cell.split("`")):
        if part:
            yield nodes.literal(text=part) if number % 2 else nodes.Text(part)


class SettingsTable(SphinxDirective):
    """Show every setting, section by section: its default from the table that the package itself
    reads, and what config.ini says of it.
    """

    def run(self) -> list[nodes.Node]:
        """Return a section with a table for each section of config.ini."""
        shown: list[nodes.Node] = []
        for section, settings in groupby(SETTINGS.values(), key=lambda setting: setting.section):
            of_names = NAMED_SECTIONS.get(section)
            lines = _explained(section)
            helps = {after.partition(" =")[0]: line for line, after in pairwise(lines)}
            title = f"[{section} NAME]" if of_names else f"[{section}]"
            block = nodes.section(
                "", nodes.title(text=title), ids=[nodes.make_id(f"section-{section}")]
            )
            rows = [row for row in settings if row.key]
            if of_names:
                block += nodes.paragraph(text=lines[0] + ".")
                cells = ((f"`{row.key}`", helps[row.key]) for row in of_names.values())
                block += table(("Key", "What it is"), cells, (30, 70))
            elif rows:
                block += table(
                    ("Key", "In code", "Default", "What it is"),
                    ((*_setting_cells(row), helps[row.key]) for row in rows),
                    (24, 24, 16, 36),
                )
            else:
                block += nodes.paragraph(text=lines[1] + ".")
                block += nodes.literal_block(text=lines[2])
            shown.append(block)
        return shown


def _explained(section: str) -> list[str]:
    """Return the lines of the top-level config.ini for a section, without their marks of comments."""
    blocks = CONFIG_FILE.read_text("utf-8").split("\n\n")
    block = next(
        candidate
        for candidate in blocks
        if re.search(rf"^(# )?\[{section}\b", candidate, re.MULTILINE)
    )
    return [line.removeprefix("# ") for line in block.splitlines()]


def _setting_cells(row: Setting) -> tuple[str, str, str]:
    default = "" if row.default in (None, "", ()) else f"`{row.default}`"
    return f"`{row.key}`", f"`{row.name}`", default


class CommandHelp(SphinxDirective):
    """Show what ``-h`` prints of every command, with a section for each."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command, those of a group below it."""
        context = click.Context(
            main, info_name="llmcall", max_content_width=90, **main.context_settings
        )
        commands = (main.get_command(context, name) for name in main.list_commands(context))
        return [self.section(command, context) for command in commands if command is not None]

    def section(self, command: click.Command, parent: click.Context) -> nodes.section:
        """Return a command's section."""
        context = click.Context(
            command,
            info_name=command.name,
            parent=parent,
            max_content_width=90,
            **command.context_settings,
        )
        path = context.command_path
        block = nodes.section("", nodes.title(text=path), ids=[nodes.make_id(path)])
        block += nodes.literal_block(text=command.get_help(context))
        if isinstance(command, click.Group):
            block += [self.section(below, context) for _, below in sorted(command.commands.items())]
        return block


def name_in_full(app: Sphinx, document: nodes.document) -> None:
    """Let an annotation's ``Iterator`` lead to ``collections.abc.Iterator``: code imports what it
    names.
    """
    found = (
        name for objects in InventoryAdapter(app.env).main_inventory.values() for name in objects
    )
    full = {name.rpartition(".")[2]: name for name in found if "." in name}
    for reference in document.findall(addnodes.pending_xref):
        if reference["reftype"] == "class":
            reference["reftarget"] = full.get(reference["reftarget"], reference["reftarget"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives, and what completes references."""
    app.connect("doctree-read", name_in_full)
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
