"""The command line: the group of its commands, and those for one call, tokens and the demo."""

from __future__ import annotations

import runpy
import sys
import sysconfig
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import click

from .._version import __version__
from ..additions import additions, load
from ..clients import registry
from ..errors import APIError, ArgumentError, LLMCallError
from ..models.tokens import TokenCount
from ..support.display import text_table, visible
from ..support.failures import process_failures
from .options import Group, OtherClient, json_option, other_clients
from .output import (
    coloured_warnings,
    discard_unwritten,
    echo,
    echo_json,
    escaping,
    is_terminal,
    shown_error,
)

DEMO = "market_day.py"
RUN = "run"
# Commands in modules of their own, each imported only for its command; features add theirs.
COMMANDS = {
    "cache": "cli.cache:cache",
    "cassette": "cli.cassette:cassette",
    "config": "cli.config:show_config",
    "diff": "cli.review:diff",
    "doctor": "cli.doctor:doctor",
    RUN: "cli.run:run",
    "show": "cli.review:show",
}


class Commands(Group):
    """The group of all commands. llmcall's errors end with a message on standard error and the exit code
    1, wrong arguments with 2; any other error is a bug, and shows its traceback.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted([*super().list_commands(context), *COMMANDS, *additions("commands")])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, or ``None`` if no command has that name."""
        if found := super().get_command(context, name):
            return found
        place = COMMANDS.get(name) or additions("commands").get(name)
        command: click.Command | None = load(place) if place else None
        return command

    def main(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Run the command line. The context's object says whether the process runs nothing else."""
        words = sys.argv[1:] if args is None else list(args)
        is_run = words[:1] == [RUN]  # a program's own output stays as it is
        with ExitStack() as stack:
            if not is_run:
                stack.enter_context(escaping())
                stack.enter_context(coloured_warnings())
            return super().main(args, *more, obj=args is None, **options)

    def invoke(self, context: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise  # the reader closed the pipe; click ends without a message
        except APIError as error:
            text = "\n".join([str(error), *getattr(error, "__notes__", [error.remedy])])
            raise shown_error(text) from error
        except (LLMCallError, OSError) as error:
            discard_unwritten()
            is_of_no_file = isinstance(error, FileNotFoundError) and error.filename is None
            words = "the working directory was removed: go to another one" if is_of_no_file else ""
            raise shown_error(words or str(error)) from error
        except ArgumentError as error:
            raise click.UsageError(visible(str(error))) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmcall")
def main() -> None:
    """Call language models and manage their recorded answers.

    The exit code is 0 for success, 1 for failure and 2 for wrong usage.
    """


@main.command()
@click.argument("text")
@click.option("-s", "--system", help="System message.")
@click.option("-m", "--model", help="Model to call, instead of the configured one.")
@other_clients
def ask(text: str, system: str | None, model: str | None, other: OtherClient | None) -> None:
    """Ask a model and print its answer as it arrives.

    TEXT is the question; "-" reads it from standard input. The answer is recorded, so asking the
    same question again costs nothing.
    """
    question = click.open_file("-", encoding="utf-8").read() if text == "-" else text
    if other and system is None:
        system = other.system
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    params = other.parameters if other else {}
    client = registry.client(other.api_type if other else None)
    try:
        with client.stream_message(messages, model=model, on_error="raise", **params) as stream:
            try:
                for piece in stream:
                    _echo_answer(piece)
            # A closed pipe or file, a full disk, a character that the output lacks: the answer is paid
            # for, so it is recorded all the same.
            except (OSError, ValueError):
                for _ in stream:
                    pass
                raise
    except APIError:
        process_failures.forget()  # the error is printed once, as the command's
        raise
    if stream.reply and not stream.reply.content:
        _echo_answer(stream.reply.refusal or "")
    echo()


def _echo_answer(text: str) -> None:
    """Print a part of an answer unchanged; on a terminal, with control characters made visible."""
    echo(visible(text) if is_terminal() else text, nl=False, color=True)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.File("r", encoding="utf-8"))
@click.option("-m", "--model", help="Model whose tokenizer to use, instead of the configured one.")
@json_option
def tokens(files: tuple[IO[str], ...], model: str | None, as_json: bool) -> None:
    """Count the tokens in text files.

    FILES are UTF-8 text; "-" reads standard input. "~" marks an estimate.
    """
    counts = [(file.name, registry.count_tokens(file.read(), model)) for file in files]
    if as_json:
        rows = [
            {"file": name, "tokens": int(count), "estimated": count.estimated}
            for name, count in counts
        ]
        echo_json(rows)
        return
    if len(counts) > 1:
        total = sum(count for _, count in counts)
        counts.append(("all", TokenCount(total, any(count.estimated for _, count in counts))))
    echo(text_table([(repr(count), name) for name, count in counts], right=[0]))


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Replay a recorded market day without an API key.

    The day is played twice. The second time, one person is changed.
    """
    installed = Path(sysconfig.get_path("data")) / "share" / "llmcall" / DEMO
    checkout = Path(__file__).resolve().parents[2] / "examples" / DEMO
    script = installed if installed.is_file() else checkout
    play = runpy.run_path(str(script), run_name="market_day")["main"]
    play(context.command_path, *arguments)
