"""Options and arguments of several commands, and the selection of records by them."""

from __future__ import annotations

import functools
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

import click

from ..additions import additions, load
from ..errors import CacheError
from ..stores.record import Record
from ..stores.records.answers import CONFLICTS
from ..support.arguments import nearest

Where = Callable[[Record], bool]
Decorated = TypeVar("Decorated", bound="Callable[..., object] | click.Command")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def conflict_option(default: str, choices: str) -> Callable[[Decorated], Decorated]:
    """Return the option that decides between two answers to one request.

    :param choices: in words, the effect of each choice.
    """
    return click.option(
        "--on-conflict",
        type=click.Choice(CONFLICTS),
        default=default,
        show_default=True,
        help=f"If two answers to a request differ: {choices}.",
    )


class RunOption(NamedTuple):
    """An option of ``llmcall run`` that a feature adds.

    :param add: adds it to the command, as click's decorators do.
    :param around: returns the context that is open around the program, by the option's value.
    :param before: is called with the option's value before anything is opened; it may end the command.
    """

    add: Callable[[Callable[..., object]], Callable[..., object]]
    around: Callable[[Any], AbstractContextManager[object]] = nullcontext
    before: Callable[[Any], object] = bool


@functools.cache
def options_of_features() -> dict[str, RunOption]:
    """Return the options of ``llmcall run`` that features add, by the name of their value."""
    return {name: load(place) for name, place in additions("run_options").items()}


def feature_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the features' options to a command."""
    for option in options_of_features().values():
        command = option.add(command)
    return command


class OtherClient(NamedTuple):
    """A client that ``llmcall ask`` asks if its option is given.

    :param option: adds the option, a flag, to the command.
    :param api_type: the client's.
    :param system: the system message unless the user gives one.
    :param parameters: the call's parameters.
    """

    option: Callable[[Callable[..., object]], Callable[..., object]]
    api_type: str
    system: str
    parameters: Mapping[str, Any]


def other_clients(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that name another client; the command gets it as ``other``, ``None`` without one."""
    clients = {name: load(place) for name, place in additions("ask_options").items()}

    @functools.wraps(command)
    def with_client(*args: object, **options: object) -> object:
        given = [client for name, client in clients.items() if options.pop(name)]
        return command(*args, other=given[0] if given else None, **options)

    for client in clients.values():
        with_client = client.option(with_client)
    return with_client


def to_option(written: str) -> Callable[[Decorated], Decorated]:
    """Return the required option that names the file to write.

    :param written: in words, the file.
    """
    file = click.Path(dir_okay=False)
    return click.option("-o", "--to", required=True, type=file, metavar="FILE", help=written)


MEANT = {"compare": "diff", "recording": "run"}  # commands by the names that people try


class Group(click.Group):
    """A group of commands that suggests the nearest for a misspelt one, with every version of click."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the name of a command, the command and its arguments."""
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            hint = nearest(MEANT.get(args[0], args[0]), self.list_commands(context))
            if not hint:
                raise
            raise click.UsageError(f"No such command {args[0]!r}{hint}", context) from error


class NumberOption(click.Option):
    """An option whose number may be left out; its command is a :class:`NumberCommand`.

    :param usual: the number that is meant then.
    """

    def __init__(self, *args: Any, usual: int, **attributes: Any) -> None:
        super().__init__(*args, metavar="[N]", **attributes)
        self.usual = usual


NUMBERED = f"{__name__}.arguments"  # where a NumberCommand keeps its arguments: its options, and all that follows


class NumberCommand(click.Command):
    """A command with options whose number may be left out. Click would take the argument that follows for it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, with the numbers that are meant."""
        options = {name: option for option in self.params for name in option.opts}
        given, rest = [], [*args]
        while rest and rest[0].startswith("-") and rest[0] != "--":
            given.append(rest.pop(0))
            option = options.get(given[-1])
            if isinstance(option, NumberOption):
                is_number = bool(rest) and rest[0].isdecimal()
                given[-1] += f"={rest.pop(0) if is_number else option.usual}"
            elif isinstance(option, click.Option) and not option.is_flag and rest:
                given.append(rest.pop(0))
        ctx.meta[NUMBERED] = given, rest
        return super().parse_args(ctx, [*given, *rest])


class Source(click.Path):
    """The type of an argument that is an existing file or directory, or a server's address."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return the path or address."""
        return value if "://" in str(value) else super().convert(value, parameter, context)


def import_function(
    option: str, name: str, *, folder: str = "", forms: str = "MODULE:FUNCTION"
) -> Callable[[Any], Any]:
    """Return the function that an option names.

    :param folder: the folder in which its module is sought first; empty means the working directory.
    :param forms: in words, the allowed forms of the option.
    :raises click.UsageError: for an unknown module or function.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, folder)
    try:
        imported = pkgutil.resolve_name(name) if module and function else None
    except (ImportError, AttributeError, ValueError) as error:
        reason = f"it must be {forms} ({error})" if isinstance(error, ValueError) else str(error)
        raise click.UsageError(f"{option} {name}: {reason}") from error
    finally:
        sys.path.remove(folder)
    if not callable(imported):
        raise click.UsageError(f"{option} {name}: it must be {forms}")
    return imported  # type: ignore[no-any-return]


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def selection_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that select records; the command gets them as one function ``where``, or
    ``None`` without any.
    """

    @click.option("--model", help="Only this model's answers.")
    @click.option(
        "--scope",
        metavar="GLOB",
        help="Only records whose scope path matches, such as 'trial-3/*'.",
    )
    @click.option(
        "--since",
        help="Only records stored since a date (2026-11-30) or within an age (90m, 12h, 7d).",
    )
    @functools.wraps(command)
    def with_selection(
        *args: object, model: str | None, scope: str | None, since: str | None, **options: object
    ) -> object:
        return command(*args, where=_selection(model, scope, since), **options)

    return with_selection


def _selection(model: str | None, scope: str | None, since: str | None) -> Where | None:
    if model is None and scope is None and since is None:
        return None
    earliest = None if since is None else _timestamp(since)

    def where(record: Record) -> bool:
        """Return whether the options select a record."""
        return (
            (earliest is None or (record.stored_at or 0) >= earliest)
            and (scope is None or fnmatchcase(record.scope, scope))
            and (model is None or record.model == model)
        )

    return where


def _timestamp(text: str) -> float:
    age = re.fullmatch(r"(\d+)\s*([smhdw])", text)
    if age:
        return time.time() - int(age[1]) * SECONDS[age[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a date (2026-11-30) nor an age (90m, 12h, 7d)"
        ) from None


def full_key(keys: Iterable[str], prefix: str, place: str, *, shown_by: str) -> str:
    """Return the one key that begins with some characters.

    :param place: the place of the records, in words, for the error.
    :param shown_by: the command that shows them.
    :raises CacheError: if no key begins so, or several do.
    """
    beginning = prefix.rstrip("…")
    found = [key for key in keys if key.startswith(beginning)]
    if len(found) != 1 or not beginning:
        problem = f"{len(found)} keys begin" if found else "no key begins"
        raise CacheError(f"{problem} with {prefix!r} among {place}; '{shown_by}' shows the keys")
    return found[0]
