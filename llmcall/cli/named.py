"""Functions that an option names, as MODULE:FUNCTION."""

from __future__ import annotations

import pkgutil
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def function_named(
    option: str, name: str, *, folder: str = "", forms: str = "MODULE:FUNCTION"
) -> Callable[[Any], Any]:
    """Return the function that an option names.

    :param folder: where its module is sought first; the working directory if it is empty.
    :param forms: what the option may be, in words.
    :raises click.UsageError: if there is no such module or function.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, folder)
    try:
        named = pkgutil.resolve_name(name) if module and function else None
    except (ImportError, AttributeError, ValueError) as error:
        raise click.UsageError(f"{option} {name}: {error}") from error
    finally:
        sys.path.remove(folder)
    if not callable(named):
        raise click.UsageError(f"{option} {name}: it must be {forms}")
    return named  # type: ignore[no-any-return]
