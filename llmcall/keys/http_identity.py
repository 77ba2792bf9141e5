"""The identity of a raw HTTP request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .messages import numbered_body
from .parameters import without_unkeyed

if TYPE_CHECKING:
    from .request import Data

# The paths of the Responses, Decisions, Messages, Interactions and Gemini APIs; what comes before them does not
# count.
ASKING = re.compile(
    r"(?P<kept>/responses|/decisions|(?<=/v1)/messages|/interactions|/models/[^/]+:(?:streamG|g)enerateContent)/?$"
)
# Paths of requests without a body: to read, cancel or delete a background response, a batch or a
# conversation and its items, and to list models.
OBJECT = re.compile(
    r"/(?:responses|interactions)/[^/]+(?:/cancel|/input_items)?/?$|/messages/batches(?:/[^/]+){0,2}/?$"
    r"|/conversations/[^/]+(?:/items(?:/[^/]+)?)?/?$|/models(?:/[^/:]+)?/?$"
)
COMPLETED = ("/completions", "/embeddings")  # the ends of paths whose requests keep their host
INTERACTIONS = "/interactions"
INPUTS = ("messages", "input", "prompt")
NOT_COUNTED = frozenset({"key", "alt", "api-version"})  # parameters of a query


def api_path(path: str, body: object) -> str | None:
    """Return the part of a path that counts, for a request to one of these APIs, else ``None``.

    :param body: the parsed JSON body; ``None`` if the request has none.
    """
    if body is None:
        found = OBJECT.search(path)
        return found[0].rstrip("/") if found else None
    found = ASKING.search(path)
    if found is None or not isinstance(body, dict):
        return None
    if found["kept"].startswith("/models/"):
        is_asking = "contents" in body
    else:
        names_model = "model" in body or (found["kept"] == INTERACTIONS and "agent" in body)
        is_asking = names_model and any(name in body for name in INPUTS)
    return found["kept"] if is_asking else None


def http_identity(
    method: str, host: str | None, path: str, query: Mapping[str, object], body: object
) -> dict[str, object]:
    """Return the fields that identify a request. For these APIs, the host, the beginning of the path
    and the ids of tool calls do not count, so that a recording replays with any base URL. Of a body that
    asks a model, only the fields count that may change the answer.

    :param host: ``None`` if it does not count, as for a model's host, which may have several addresses.
    :param query: without credentials.
    :param body: plain data, or ``None``.
    """
    end_of_path = api_path(path, body)
    is_at_model = host is None or end_of_path is not None or path.rstrip("/").endswith(COMPLETED)
    # Of another body, such as a conversation's, the metadata may be all that it brings.
    if isinstance(body, dict) and is_at_model and (end_of_path is not None or "model" in body):
        body = without_unkeyed(body)
    if end_of_path is None and host is not None:
        fields: dict[str, Data] = {"method": method, "host": host, "path": path}
    else:
        fields = {"method": method, "path": end_of_path or path}
        body = numbered_body(body)
        query = {name: values for name, values in query.items() if name not in NOT_COUNTED}
    if query:
        fields["query"] = dict(query)
    return {**fields, "body": body}
