"""The identity of a raw HTTP request, and new keys for recorded requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..config.settings import Settings
from ..models.catalog import resolve
from ..support.normalizers import normalizer
from .messages import normalized_texts, numbered_body
from .parameters import without_unkeyed
from .request import Data

# The paths of the Responses, Decisions, Messages, Interactions and Gemini APIs; what comes before them does not
# count.
MODEL_PATH = re.compile(
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
    found = MODEL_PATH.search(path)
    if found is None or not isinstance(body, dict):
        return None
    if found["kept"].startswith("/models/"):
        calls_model = "contents" in body
    else:
        names_model = "model" in body or (found["kept"] == INTERACTIONS and "agent" in body)
        calls_model = names_model and any(name in body for name in INPUTS)
    return found["kept"] if calls_model else None


def http_identity(
    method: str, host: str | None, path: str, query: Mapping[str, object], body: object
) -> dict[str, object]:
    """Return the fields that identify a request. For these APIs, the host, the beginning of the path
    and the ids of tool calls do not count, so that a recording replays with any base URL. In a request to a model,
    only the fields that may change the answer count.

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


# The fields that hold the texts of a conversation.
NORMALIZED = ("messages", "input", "arguments", "body")


def under_settings(request: Mapping[str, Data], settings: Settings) -> dict[str, object]:
    """Return a stored request under some settings: their aliases and normalizers apply, and tool calls are
    numbered. Its namespace stays.
    """
    new_request: dict[str, Data] = numbered_body(request)
    if "model" in request:
        model = resolve(str(request["model"]), settings.aliases)
        new_request = {**without_unkeyed(new_request), "model": model}
    if "method" in request and isinstance(request.get("path"), str):  # a file's may be anything
        new_request = http_identity(
            request["method"],
            request.get("host"),  # a model's does not count
            request["path"],
            request.get("query", {}),
            request.get("body"),
        )
        if "namespace" in request:
            new_request["namespace"] = request["namespace"]
    if (normalize := normalizer(settings.cache_normalize)) is not None:
        texts = {name: new_request[name] for name in NORMALIZED if name in new_request}
        new_request |= normalized_texts(texts, normalize)
    return new_request
