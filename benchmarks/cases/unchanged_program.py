"""A program on the OpenAI SDK that knows nothing of llmcall: what the HTTP client that records and
replays it costs.
"""

from __future__ import annotations

import importlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from .. import workload
from ..bench import Bench, Contender
from ..contestants import LLMCALL, PLAIN_OPENAI
from ..figures import Group
from ..stub import base_url
from .asking import WARM_UP, check, prepared, seconds_each

MOCK = "MockTransport"
DELAY = 50  # milliseconds; few models answer as fast


def run(bench: Bench) -> list[Group]:
    """Measure a replayed call against a transport that answers at once, and a recorded one against
    the plain SDK's.
    """
    if LLMCALL not in bench.entries:
        return []
    with tempfile.TemporaryDirectory() as folder:

        def contenders(measure: str, reference: str, **parameters: Any) -> list[Contender]:
            """Return the plain SDK under a title, and llmcall."""
            return [
                Contender(
                    title,
                    LLMCALL.environment,
                    {
                        "module": f"contestants.{PLAIN_OPENAI.module}",
                        "case": "unchanged_program",
                        "measure": measure,
                        "parameters": {"records": title == LLMCALL.title, **parameters},
                    },
                )
                for title in (reference, LLMCALL.title)
            ]

        rounds, sizes = 2 * bench.sizes.rounds, bench.sizes
        return [
            bench.compare(
                contenders("replayed", MOCK, folder=f"{folder}/replayed", count=sizes.hits),
                title="a replayed call through the SDK, on llmcall.http_client()",
                unit="s",
                reference=MOCK,
                rounds=rounds,
            ),
            *(
                bench.compare(
                    contenders(
                        "recorded",
                        PLAIN_OPENAI.title,
                        folder=f"{folder}/recorded-{delay}",
                        count=sizes.calls,
                        address=base_url(bench.address, delay),
                    ),
                    title=f"a recorded call through the SDK, on llmcall.http_client(), {answered}",
                    unit="s",
                    reference=PLAIN_OPENAI.title,
                    rounds=rounds,
                )
                for delay, answered in (
                    (0, "answered at once"),
                    (DELAY, f"answered after {DELAY} ms"),
                )
            ),
        ]


def replayed(subject: Any, folder: str, count: int, records: bool) -> Iterator[float | None]:
    """Ask the same questions in each round; a transport in this process answers those that are not
    replayed.
    """
    http = _http_library()
    answer, sent = json.dumps(workload.completion("the question")).encode(), []

    def respond(request: Any) -> Any:
        """Answer at once."""
        sent.append(request)
        return http.Response(200, headers={"content-type": "application/json"}, content=answer)

    transport = http.MockTransport(respond)
    with closing(
        _contestant(subject, folder, "http://localhost/v1", records, transport)
    ) as contestant:
        batch = prepared(contestant, range(count))
        for messages in batch:
            if contestant.text(contestant.ask(messages)) != workload.answer_to("the question"):
                raise RuntimeError("the answer is not the one that was sent")
        yield None
        while True:
            before = len(sent)
            seconds = seconds_each(contestant, batch)
            if records and len(sent) > before:
                raise RuntimeError("recorded questions were asked again")
            sent.clear()
            yield seconds


def recorded(
    subject: Any, folder: str, count: int, records: bool, address: str
) -> Iterator[float | None]:
    """Ask new questions in each round of a server, at its API's address."""
    with closing(_contestant(subject, folder, address, records)) as contestant:
        for warm_up in range(WARM_UP, WARM_UP + 10):
            check(contestant, [warm_up], contestant.ask_each(prepared(contestant, [warm_up])))
        yield None
        for first in itertools.count(step=count):
            yield seconds_each(contestant, prepared(contestant, range(first, first + count)))


def _contestant(
    subject: Any, folder: str, address: str, records: bool, transport: Any = None
) -> Any:
    """Return the SDK's contestant, on llmcall's HTTP client where it is to record."""
    import openai

    import llmcall

    http = _http_library()
    client_class: Callable[..., Any] = llmcall.http_client if records else http.Client
    options = {"cache_path": folder} if records else {}
    contestant = subject.Contestant(folder, address)
    contestant.client.close()
    client = client_class(transport=transport or http.HTTPTransport(), **options)
    contestant.client = openai.OpenAI(
        api_key=workload.API_KEY, base_url=address, http_client=client
    )
    return contestant


def _http_library() -> Any:
    """Return the HTTP library of the installed SDK."""
    import openai

    base = next(
        ancestor for ancestor in openai.DefaultHttpxClient.__mro__ if ancestor.__name__ == "Client"
    )
    return importlib.import_module(base.__module__.partition(".")[0])
