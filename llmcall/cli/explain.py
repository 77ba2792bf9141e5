"""``llmcall cache explain``: why a request is not recorded."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..cache.cache import ResponseCache
    from ..types import Request

__all__ = ["explain"]

MESSAGES = ("messages", "current_messages")


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--scope", metavar="PATH", help="The scope in which it is asked, such as trial-3/lisa.")
@click.pass_obj
def explain(found: ResponseCache, file: IO[str], scope: str | None) -> None:
    """Say why a request is not recorded.

    FILE holds JSON: a list of messages, or the arguments of send_message by name, "messages" among them; "-" reads
    standard input. The report names the nearest record, what differs from it, and why.
    """
    messages, arguments = _read(file)
    click.echo(str(found.explain(_request(messages, arguments, scope))))


def _read(file: IO[str]) -> tuple[Any, dict[str, Any]]:
    try:
        data = json.load(file)
    except ValueError as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(data, dict):
        return data, {}
    given = [name for name in MESSAGES if name in data]
    if len(given) != 1:
        raise click.UsageError(f'{file.name} must have "messages", beside the other arguments of send_message')
    return data[given[0]], {name: value for name, value in data.items() if name not in MESSAGES}


def _request(messages: Any, arguments: dict[str, Any], scope: str | None) -> Request:
    from ..clients.registry import client
    from ..replay.scopes import scope as opened

    with ExitStack() as stack:
        for name in scope.split("/") if scope else ():
            stack.enter_context(opened(name))
        return client().build_request(messages, **arguments)
