"""``llmcall import``, ``pack`` and ``verify``."""

from __future__ import annotations

import os
from typing import Any

import click

from ..experiments.importing.import_answers import import_located
from ..experiments.importing.layouts import by_layout, entries_in
from ..experiments.importing.published_tables import Columns, parameters
from ..experiments.packing.pack import pack as pack_study
from ..experiments.packing.verify import WARNING
from ..experiments.packing.verify import verify as verify_study
from ..keys.parameters import checked_parameters
from ..support.display import visible, visible_json
from .options import UserPath, import_function, json_option, to_option, unicode_text
from .output import echo


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
@click.argument("files", nargs=-1, required=True, type=UserPath(exists=True))
@to_option("The cassette to write. An existing file is not replaced.")
@click.option(
    "--layout",
    metavar="MODULE:FUNCTION",
    help="A function that gets the path of a file or a folder, and yields its conversations or exchanges.",
)
@click.option(
    "--source",
    callback=unicode_text,
    metavar="TEXT",
    help="Where the answers come from: an address, a commit, a licence.",
)
@click.option("-m", "--model", callback=unicode_text, help="The model, for files that name none.")
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
    names; or objects with messages. Columns that were not used are listed, and so are turns without a
    readable answer, which are skipped. No call is made.
    """
    meaning = Columns(columns)
    paths = [os.path.realpath(file) for file in files]
    if twice := [file for file, path in zip(files, paths, strict=True) if paths.count(path) > 1]:
        raise click.UsageError(f"{' and '.join(twice)} are the same file; name it once")
    if layout is not None:
        if columns:
            raise click.UsageError("--column is for files that are read without --layout")
        function = import_function("--layout", layout)
        conversations = by_layout(function, layout, files, meaning)
    else:
        conversations = entries_in(files, meaning, model)
    try:
        shared = checked_parameters(parameters(params))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--params") from error
    echo(visible(str(import_located(conversations, to, model, shared, source, columns=meaning))))


@click.command()
@click.argument("folder", type=UserPath())
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--cassette",
    "cassettes",
    multiple=True,
    required=True,
    type=UserPath(),
    metavar="FILE",
    help="A recording that the program replays. Repeat the option for each.",
)
@click.option(
    "--add",
    multiple=True,
    type=UserPath(),
    metavar="PATH",
    help="A file or folder whose use llmcall cannot see, such as one that a child process reads.",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help='An environment variable that the program gets. A credential gets the value "none".',
)
@click.option("--prune", is_flag=True, help="Leave out records that no call used.")
@click.option(
    "--whole",
    is_flag=True,
    help="Pack the recordings unchanged, as evidence, although the program uses only a part of them.",
)
@click.option("--zip", type=UserPath(dir_okay=False), help="Also write a ZIP file.")
def pack(**arguments: Any) -> None:
    """Package a study for others to rerun.

    FOLDER is the package to make. COMMAND is the program, after "--": SCRIPT [ARG...] or
    -m MODULE [ARG...]. The working directory is the project. The program runs in a copy of it,
    without network access, and replays its recordings. What it reads and writes is packed.
    """
    echo(visible(str(pack_study(**arguments))))


@click.command()
@click.argument("package", type=UserPath(exists=True))
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="NUMBER",
    help="Largest relative difference between numbers in results and printed text, such as 1e-9; absolute below 1.",
)
@json_option
def verify(package: str, tolerance: float, as_json: bool) -> None:
    """Rerun a packaged study and compare its results.

    PACKAGE is a folder or a ZIP file. The program runs in a temporary folder, without network
    access, and replays its recordings: as they are, and with exchanged answers. The exit code is 1 if
    anything differs, or if another version of llmcall made the package.
    """
    echo(WARNING, err=as_json)
    verification = verify_study(package, tolerance=tolerance)
    if as_json:
        data = {
            "ok": verification.ok,
            "checks": [vars(check) for check in verification.checks],
            "conclusion": verification.conclusion(),
        }
        echo(visible_json(data))
    else:
        echo(str(verification))
    if not verification.ok:
        raise click.exceptions.Exit(1)
