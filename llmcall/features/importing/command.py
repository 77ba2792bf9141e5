"""``llmcall import``."""

from __future__ import annotations

import os

import click

from ...cli.options import import_function, to_option
from ...cli.output import echo
from ...keys.parameters import checked_parameters
from ...support.display import visible
from .import_answers import import_files
from .published_tables import parameters


def _assignments(
    _: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Return the values of a repeated option by name."""
    found: dict[str, str] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not name or not separator or not text:
            raise click.BadParameter(f"{value!r} must be {parameter.metavar}")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = text
    return found


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True))
@to_option("The cassette to write. An existing file is not replaced.")
@click.option(
    "--layout",
    metavar="MODULE:FUNCTION",
    help="A function that gets the path of a file or a folder, and yields its conversations or exchanges.",
)
@click.option(
    "--source",
    metavar="TEXT",
    help="Where the answers come from: an address, a commit, a licence.",
)
@click.option("-m", "--model", help="The model, for files that name none.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    callback=_assignments,
    metavar="NAME=COLUMN",
    help="The column that holds prompt, answer, system, scope, model or a parameter, such as "
    "prompt='Question text'. Repeat the option for each.",
)
@click.option(
    "--params",
    multiple=True,
    callback=_assignments,
    metavar="NAME=VALUE",
    help="A parameter of all requests, such as temperature=1. Repeat the option for each.",
)
def import_answers(
    files: tuple[str, ...],
    to: str,
    layout: str | None,
    source: str | None,
    model: str | None,
    columns: dict[str, str],
    params: dict[str, str],
) -> None:
    """Convert published answers to a cassette.

    FILES are VCR cassettes (extra 'yaml'); the input and output of a batch; JSON Lines or CSV with
    prompt, answer (or response or completion) and optionally model, scope, system and parameters by their
    names; or objects with messages. Unused columns are listed. Turns without a readable answer are
    listed and skipped. No call is made.
    """
    paths = [os.path.realpath(file) for file in files]
    if twice := [file for file, path in zip(files, paths, strict=True) if paths.count(path) > 1]:
        raise click.UsageError(f"{' and '.join(twice)} are the same file; name it once")
    for file, path in zip(files, paths, strict=True):
        if not (os.path.isfile(path) or os.path.isdir(path)):
            raise click.UsageError(
                f"{file} is a pipe or a device, which cannot be read twice: give a file. It may be compressed (.gz)"
            )
    if layout is not None and columns:
        raise click.UsageError("--column is for files that are read without --layout")
    function = None if layout is None else import_function("--layout", layout)
    try:
        checked_parameters(parameters(params))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--params") from error
    options = {"model": model, "params": params, "columns": columns, "layout": layout}
    found = import_files(
        files, to, {name: value for name, value in options.items() if value}, source, function
    )
    echo(visible(str(found)))
