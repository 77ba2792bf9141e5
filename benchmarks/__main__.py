"""The command line of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .bench import SMALL, Bench, Sizes
from .cases import CASES, run
from .contestants import CONTESTANTS
from .environments import MEGABYTES, Environments, default_folder
from .recorders import RECORDERS
from .report import circumstances
from .stub import stub_server
from .tables import table

TITLES = {entry.module: entry for entry in CONTESTANTS}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c", "--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Only these."
)
@click.option(
    "-p",
    "--contestant",
    "names",
    multiple=True,
    type=click.Choice(list(TITLES)),
    help="Only these.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="How often each contestant has its turn.  [default: 7]",
)
@click.option(
    "--records",
    type=click.IntRange(min=2_000),
    help="Records of the large store.  [default: 100000]",
)
@click.option(
    "--small", is_flag=True, help="Sizes that show that everything works, and measure nothing."
)
@click.option(
    "--environments",
    type=click.Path(path_type=Path),
    default=default_folder(),
    show_default=True,
    help="Where contestants are installed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(
    cases: tuple[str, ...],
    names: tuple[str, ...],
    rounds: int | None,
    records: int | None,
    small: bool,
    environments: Path,
    as_json: bool,
) -> None:
    """Measure llmcall side by side with what a user would pick instead."""
    size_overrides = {"rounds": rounds, "records": records}
    sizes = (SMALL if small else Sizes())._replace(
        **{name: value for name, value in size_overrides.items() if value}
    )
    contestant_environments = Environments(environments)
    cases = cases or tuple(CASES)
    entries = [TITLES[name] for name in names] or list(CONTESTANTS)
    used = [
        *(entries if set(cases) != {"recorders"} else ()),
        *(RECORDERS if "recorders" in cases else ()),
    ]
    if missing := contestant_environments.missing(entry.environment for entry in used):
        size = sum(MEGABYTES[name] for name in missing)
        click.echo(
            f"{', '.join(missing)}: installed when first needed, at most {size:,} MB below {environments}",
            err=True,
        )
    results = {}
    with stub_server() as address:
        bench = Bench(
            contestant_environments,
            entries,
            address,
            sizes,
            lambda line: click.echo(line, err=True),
        )
        for name in cases:
            results[name] = run(name, bench)
            if not as_json:
                click.echo("\n\n".join(map(table, results[name])) + "\n")
    facts = circumstances(contestant_environments, used)
    if as_json:
        groups = {
            name: [group._asdict() | {"rows": group.rows()} for group in result]
            for name, result in results.items()
        }
        click.echo(
            json.dumps({"circumstances": facts, "cases": groups}, indent=2, ensure_ascii=False)
        )
    else:
        click.echo("\n".join(f"{name}: {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
