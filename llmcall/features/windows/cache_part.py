"""What ``llmcall cache`` says and clears of the answers that are awaited."""

from __future__ import annotations

import click

from ...cli.options import CachePart
from ...cli.output import echo
from ...clients.openai import OpenAIClient
from ...errors import CacheCorruptError
from ...stores.cache.cache import ResponseCache
from ...support.display import counted, printable
from .awaited import Journal
from .transport import cancel_awaited


def count(cache: ResponseCache) -> int | None:
    """Return the number of awaited answers, or ``None`` if the journal is damaged."""
    try:
        return len(cache.beside(Journal))
    except CacheCorruptError:
        return None


def clear(cache: ResponseCache) -> None:
    """Cancel and delete the awaited answers at the servers in these settings, and forget all others."""
    journal, number = cache.beside(Journal), count(cache)
    if number is None:
        journal.delete()
        echo("the damaged journal of awaited answers is deleted; the requests will be sent again")
        return
    if not number:
        echo("no answer is awaited")
        return
    with OpenAIClient() as client:
        others = cancel_awaited(client, journal)
    echo("all awaited answers are cancelled and deleted")
    for url, answers in others.items():
        echo(
            f"{counted(answers, 'answer')} at {printable(url)} only forgotten, because these settings do not have "
            "this address; the server deletes them after 30 days",
            err=True,
        )


AWAITED = CachePart(
    click.option(
        "--awaited",
        is_flag=True,
        help="Cancel and delete the answers awaited in a window; delete no record.",
    ),
    noun="answer",
    count=count,
    clear=clear,
    left="cancels and deletes them on the server",
)
