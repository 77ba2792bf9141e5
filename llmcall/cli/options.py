"""Options and arguments of several commands."""

from __future__ import annotations

import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..stores.records.answers import CONFLICTS
from ..support.surrogates import check_unicode

if TYPE_CHECKING:
    from collections.abc import Callable

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


def to_option(written: str) -> Callable[[Decorated], Decorated]:
    """Return the required option that names the file to write.

    :param written: in words, the file.
    """
    file = UserPath(dir_okay=False)
    return click.option("-o", "--to", required=True, type=file, metavar="FILE", help=written)


def unicode_text(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an argument that is not in the terminal's encoding."""
    if value is not None:
        try:
            check_unicode(value, parameter.human_readable_name)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return value


class UserPath(click.Path):
    """The type of a path that may begin with ``~``: a shell leaves it in ``--to=~/run.jsonl``."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return the path."""
        return super().convert(os.path.expanduser(value), parameter, context)


class Source(UserPath):
    """The type of an argument that is an existing file or directory, or a server's address."""

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return the path or address."""
        return value if "://" in str(value) else super().convert(value, parameter, context)


def import_function(
    option: str, name: str, *, folder: str = "", forms: str = "MODULE:FUNCTION"
) -> Callable[[Any], Any]:
    """Return the function that an option names.

    :param folder: the folder in which its module is sought first; empty means the working directory.
    :param forms: in words, the allowed forms of the option.
    :raises click.UsageError: if there is no such module or function.
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
