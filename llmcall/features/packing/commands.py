"""``llmcall pack`` and ``verify``."""

from __future__ import annotations

from typing import Any

import click

from ...cli.options import json_option
from ...cli.output import echo, echo_json
from ...support.display import visible
from .pack import pack as pack_study
from .verify import WARNING
from .verify import verify as verify_study


@click.command()
@click.argument("folder", type=click.Path())
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--cassette",
    "cassettes",
    multiple=True,
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="A recording that the program replays. Repeat the option for each.",
)
@click.option(
    "--add",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help="A file or folder whose use llmcall cannot see, such as a child process's input.",
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
    help="Pack the recordings unchanged, as evidence, even if the program uses only part of them.",
)
@click.option("--zip", type=click.Path(dir_okay=False), help="Also write a ZIP file.")
def pack(**arguments: Any) -> None:
    """Package a study for others to rerun.

    FOLDER is the package to make. COMMAND is the program, after "--": SCRIPT [ARG...] or
    -m MODULE [ARG...]. The working directory is the project. The program runs in a copy of it,
    without network access, and replays its recordings. What it reads and writes is packed.
    """
    echo(visible(str(pack_study(**arguments))))


@click.command()
@click.argument("package", type=click.Path(exists=True))
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="NUMBER",
    help="Largest relative difference between numbers in results and printed text, such as 1e-9; absolute below 1.",
)
@click.option(
    "--pages",
    type=click.Path(),
    metavar="FOLDER",
    help="Write README.md, REPORTING.md and report.html anew to a folder.",
)
@json_option
def verify(package: str, tolerance: float, pages: str | None, as_json: bool) -> None:
    """Rerun a packaged study and compare its results.

    PACKAGE is a folder or a ZIP file. The program runs in a temporary folder, without network
    access, and replays its recordings: as they are, and with shuffled answers. The exit code is 1 if
    anything differs.
    """
    echo(WARNING, err=as_json)
    verification = verify_study(package, tolerance=tolerance, pages=pages)
    if as_json:
        data = {
            "ok": verification.ok,
            "checks": [vars(check) for check in verification.checks],
            "facts": verification.facts,
            "conclusion": verification.conclusion(),
        }
        echo_json(data)
    else:
        echo(str(verification))
    if not verification.ok:
        raise click.exceptions.Exit(1)
