"""``llmcall pack`` and ``llmcall verify``: hand a study to others, and check one."""

from __future__ import annotations

from typing import Any

import click

from ..display.printable import visible, visible_json
from .cache import json_option


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
    help="A file or folder that the program needs and llmcall cannot see, such as one that a child "
    "process reads.",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help='An environment variable that the program gets. A credential gets the value "none".',
)
@click.option("--prune", is_flag=True, help="Leave out records that no call used.")
@click.option("--zip", type=click.Path(dir_okay=False), help="Also write a ZIP file.")
def pack(**arguments: Any) -> None:
    """Pack a study so that others can run it again.

    FOLDER is the package to make. COMMAND is the program, after "--": SCRIPT [ARG...] or
    -m MODULE [ARG...]. The working directory is the project. The program runs in a copy of it,
    without network access, and replays its recordings. What it reads and writes is packed.
    """
    from ..study.packing.pack import pack as make

    click.echo(visible(str(make(**arguments))))


@click.command()
@click.argument("package", type=click.Path(exists=True))
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="NUMBER",
    help="Largest relative difference between numbers in results and printed text, such as 1e-9; absolute below 1.",
)
@json_option
def verify(package: str, tolerance: float, as_json: bool) -> None:
    """Run a packed study again and compare its results.

    PACKAGE is a folder or a ZIP file. The program runs in a temporary folder, without network
    access, and replays its recordings. The exit code is 1 if anything differs.
    """
    from ..study.packing.verify import WARNING
    from ..study.packing.verify import verify as check

    click.echo(WARNING, err=as_json)
    verification = check(package, tolerance=tolerance)
    if as_json:
        data: dict[str, Any] = {
            "ok": verification.ok,
            "checks": [vars(each) for each in verification.checks],
            "conclusion": verification.conclusion(),
        }
        click.echo(visible_json(data))
    else:
        click.echo(str(verification))
    if not verification.ok:
        raise click.exceptions.Exit(1)
