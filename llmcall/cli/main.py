"""The command line: ask, count tokens, show settings, check them and play the demo."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import click

from .._version import __version__
from ..display.printable import visible_json
from ..display.tables import table
from ..errors import APIError, LLMCallError
from ..failures import process_failures
from .cache import as_json, cache
from .run import run
from .runs import cassette, diff, report, show

DEMO = "market_day.py"
# So small a model is at its best with the words that it finds most likely, and may not know when to
# stop.
LOCAL: dict[str, Any] = {"temperature": 0, "max_tokens": 200}
# without a system message it wanders off, in other languages too
LOCAL_SYSTEM = "You are a helpful assistant."


class Commands(click.Group):
    """Turn llmcall's errors into a message on standard error and the exit code 1."""

    def main(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Run the command line; its object tells whether the process is there for it alone."""
        return super().main(args, *more, obj=args is None, **options)

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise  # whoever read the output has seen enough: click ends in silence
        except APIError as error:
            raise click.ClickException(
                "\n".join([str(error), *getattr(error, "__notes__", [error.remedy])])
            ) from error
        except (LLMCallError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmcall")
def main() -> None:
    """Call language models, and look after their recorded answers.

    Exit codes: 0 done, 1 the thing failed, 2 wrong usage.
    """


for command in (cache, cassette, diff, report, run, show):
    main.add_command(command)


@main.command()
@click.argument("text")
@click.option("-s", "--system", help="The system message.")
@click.option("-m", "--model", help="The model, instead of the configured one.")
@click.option(
    "--local",
    is_flag=True,
    help="Ask a small model in this process: no key, no network (extra 'local').",
)
def ask(text: str, system: str | None, model: str | None, local: bool) -> None:
    """Ask a model, and print its answer as it comes.

    TEXT is the question; "-" reads it from standard input. The answer is recorded: the same
    question costs nothing the next time.
    """
    from ..clients.registry import client

    question = sys.stdin.read() if text == "-" else text
    if not question.strip():
        raise click.UsageError("there is no question")
    if local and system is None:
        system = LOCAL_SYSTEM
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    params = LOCAL if local else {}
    asked = client("local" if local else None)
    try:
        with asked.stream_message(messages, model=model, on_error="raise", **params) as stream:
            for piece in stream:
                click.echo(piece, nl=False)
    except APIError:
        process_failures.forget()  # this one is told, and there is no run to be replayed
        raise
    click.echo(stream.reply.refusal if stream.reply and stream.reply.content is None else "")


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.File("r", encoding="utf-8"))
@click.option(
    "-m", "--model", help="The model whose tokenizer counts; by default the configured one."
)
@as_json
def tokens(files: tuple[Any, ...], model: str | None, as_json: bool) -> None:
    """Count the tokens of texts.

    FILES are UTF-8; "-" is standard input. "~" marks an estimate.
    """
    from ..clients.registry import count_tokens
    from ..models.tokens import TokenCount

    counts = [(file.name, count_tokens(_text_of(file), model)) for file in files]
    if as_json:
        rows = [
            {"file": name, "tokens": int(count), "estimated": count.estimated}
            for name, count in counts
        ]
        click.echo(visible_json(rows))
        return
    if len(counts) > 1:
        total = sum(count for _, count in counts)
        counts.append(("all", TokenCount(total, any(count.estimated for _, count in counts))))
    click.echo(table([(repr(count), name) for name, count in counts], right=[0]))


def _text_of(file: Any) -> str:
    try:
        return str(file.read())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file.name} is no UTF-8 text: byte {error.start}") from error


@main.command("config")
@click.option(
    "--all", "everything", is_flag=True, help="Show also the settings that have their defaults."
)
@as_json
def show_config(everything: bool, as_json: bool) -> None:
    """Show the settings and where they came from.

    First, and without --all alone, those that differ from their defaults. Secrets are masked.
    """
    from ..clients.registry import settings
    from ..config import resolve

    found = [(row, _data(value), origin.text) for row, value, origin in settings().items()]
    if as_json:
        rows = [
            {
                "section": row.section,
                "key": row.key,
                "name": row.name,
                "value": value,
                "origin": text,
            }
            for row, value, text in found
        ]
        click.echo(visible_json(rows))
        return
    lines = [
        (place, _shown(item), text)
        for row, value, text in found
        for place, item in _lines(row, value)
    ]
    lines.sort(key=lambda line: line[2] == "default")
    shown = [line for line in lines if everything or line[2] != "default"]
    if shown:
        click.echo(table(shown))
    if not everything:
        click.echo(
            f"{'the others' if shown else 'all settings'} have their defaults: --all shows them"
        )
    click.echo(resolve.searched())


def _data(value: Any) -> Any:
    """Return a setting's value as JSON has it: endpoints are dicts by their fields."""
    if not isinstance(value, tuple):
        return value
    return [item._asdict() if hasattr(item, "_asdict") else item for item in value]


def _lines(row: Any, value: Any) -> list[tuple[str, Any]]:
    """Return the keys of config.ini that would give a setting, each with its value."""
    if row.name == "endpoints":
        value = {each.pop("name"): each for each in value}
    if not isinstance(value, dict) or not value:
        return [(f"[{row.section}] {row.key or row.name}", value)]
    if row.name not in ("endpoints", "models"):
        return [(f"[{row.section}] {model}", item) for model, item in value.items()]
    return [
        (f"[{row.section} {name}] {field.upper()}", item)
        for name, fields in value.items()
        for field, item in fields.items()
        if item is not None
    ]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return "-" if value in (None, "", {}) else str(value)


@main.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check what a call needs, and say how to mend it.

    That is: the key, the endpoint, the model, the cache directory and the tokenizer. The exit code
    is 1 where something is wrong.
    """
    from .doctor import checks

    found = list(checks())
    if as_json:
        click.echo(visible_json([check._asdict() for check in found]))
    else:
        rows = []
        for check in found:
            rows.append(("ok" if check.ok else "FAIL", check.name, check.found))
            if check.remedy:
                rows.append(("", "", f"→ {check.remedy}"))
        click.echo(table(rows))
    if not all(check.ok for check in found):
        raise click.exceptions.Exit(1)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Play a day at the market, without key or network.

    It is played from recorded answers, then once more with one person changed.
    """
    play = runpy.run_path(str(_demo_script()), run_name="market_day")["main"]
    play(context.command_path, *arguments)


def _demo_script() -> Path:
    import sysconfig

    installed = Path(sysconfig.get_path("data")) / "share" / "llmcall" / DEMO
    checkout = Path(__file__).resolve().parents[2] / "examples" / DEMO
    for script in (installed, checkout):
        if script.is_file():
            return script
    raise LLMCallError(
        f"the demo is missing: neither {installed} nor {checkout} is there; install the package again"
    )
