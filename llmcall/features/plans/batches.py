"""Batches: a plan's requests as a file that a provider answers within a day, at half the price."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ...apis.bodies import read_object
from ...apis.token_usage import TokenUsage
from ...clients.api_errors import failure
from ...clients.responses_api import without_request
from ...clients.sdk import path_and_body
from ...core.kinds import KINDS
from ...core.seams import Response
from ...errors import APIError, ContentFilterError, ServiceError
from ...keys.parameters import sent_body
from ...keys.request import Request
from ...stores.record import make_record
from ...support.display import counted
from ...support.system import check_replaceable
from ...traffic.usage import count
from ..importing.import_answers import Imported
from ..importing.layouts import batch_response
from ..importing.published_responses import BATCH

if TYPE_CHECKING:
    from ...clients.base import LLMClient

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000  # of a file; OpenAI's guide, "Batch API"
MARK = b'"method": "POST", "url": "/v1/'  # in a line with a request


STORED = "stored"


@dataclass(frozen=True)
class ReadBatch(Imported):
    """The answers read from a batch; ``str()`` gives a report.

    :ivar failed: the number of failed answers by reason.
    :ivar others: the numbers of other lines, by what they are.
    """

    failed: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [f"{counted(self.records, 'answer')} stored"]
        if self.failed:
            reasons = ", ".join(f"{number:,} {why}" for why, number in self.failed.most_common())
            parts.append(f"{self.failed.total():,} failed ({reasons})")
        parts += (f"{number:,} {what}" for what, number in self.others.items())
        return ", ".join(parts)


class Planned(NamedTuple):
    """A request of a plan, and the client that would send it."""

    client: LLMClient
    request: Request

    def line(self) -> str:
        """Return its line of a batch."""
        client, request = self
        site = client.site(request.model)
        wire = client.wire(request.body, site)
        sent = request._replace(body=sent_body(request.body, site.capabilities), wire=wire)
        deployment = site.endpoints[0].deployment
        path, body = path_and_body(sent, deployment)
        body["model"] = deployment or body["model"]
        entry = {"custom_id": request.cache_key, "method": "POST", "url": f"/v1{path}"}
        return json.dumps({**entry, "body": body}) + "\n"

    def store(self, line: dict[str, object]) -> None:
        """Store the answer in a batch's line, and count its usage.

        :raises APIError: if it is an error, or no complete answer that fits.
        """
        client, request = self
        response = batch_response(line)
        answer, status = response["body"], response["status_code"]
        if isinstance(status, int) and status >= 400:
            raise failure(status, answer)
        if "output" in answer:
            answer = without_request(answer)
        KINDS[request.kind].check(request, Response(answer), must_fit_window=False)
        site = client.site(request.model)
        price = site.pool.price(site.endpoints[0].name, BATCH)
        cost = None if price is None else price.cost_of_answer(answer)
        total = None if cost is None else cost.total
        record = make_record(
            request, answer, cost=total, api_type=site.api_type, host=site.hosts[0]
        )
        client.cache.store(record)
        client.cache.batched_keys.add(request.cache_key)
        tokens = TokenUsage.of(answer)
        amounts: dict[str, float | str | None] = {
            "calls": 1,
            "input_tokens": tokens.input_tokens,
            "cached_input_tokens": tokens.cached_tokens,
            "output_tokens": tokens.output_tokens,
            "cost": total,
        }
        if price is not None:
            amounts["priced_by"] = price.source
        path = (request.sample or "").rpartition("#")[0]
        count(client.meter, request.model, path, amounts)


class Batch(dict[str, Planned]):
    """The requests of a plan, by key."""

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'request')}>"

    def joined(self, other: Batch) -> Batch:
        """Return the requests of both."""
        return Batch({**self, **other})

    def write(self, path: str | os.PathLike[str]) -> int:
        """Write them to a file; see :meth:`.Plan.write_batch`."""
        lines = [planned.line() for planned in self.values()]
        size = sum(map(len, lines))
        if len(lines) > MOST_REQUESTS or size > MOST_BYTES:
            raise ValueError(
                f"{len(lines):,} requests of {size / 1e6:,.0f} MB: a batch has at most {MOST_REQUESTS:,} and "
                f"{MOST_BYTES / 1e6:.0f} MB. Split the rows, and write a batch of each part's plan"
            )
        check_replaceable(os.fspath(path), MARK)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines)
        return len(lines)

    def read(self, paths: Sequence[str | os.PathLike[str]]) -> ReadBatch:
        """Store the answers in files; see :meth:`.Plan.read_batch`."""
        failed, others = Counter[str](), Counter[str]()
        skipped: list[tuple[int, str]] = []
        for path in paths:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    try:
                        what = words = self._store(line)
                        others[what] += 1
                    except APIError as error:
                        what, words = _reason(error), str(error)
                        failed[what] += 1
                    if what != STORED:
                        skipped.append((number, f"{os.fspath(path)}: {words}"))
        stored = others.pop(STORED, 0)
        return ReadBatch("", stored, stored + len(skipped), skipped, failed=failed, others=others)

    def _store(self, line: bytes) -> str:
        """Store the answer in a line; return its outcome."""
        try:
            entry = read_object(line, "line")
        except ServiceError:
            return "damaged"
        planned = self.get(str(entry.get("custom_id")))
        if planned is None:
            return "for no request in this plan"
        if planned.client.cache.get(planned.request.cache_key) is not None:
            return "stored before"
        planned.store(entry)
        return STORED


def _reason(error: APIError) -> str:
    if isinstance(error, ContentFilterError):
        return "content_filter"
    return str(error.code or str(error).partition(":")[0])
