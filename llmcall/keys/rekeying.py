"""A stored request under the current settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..config.settings import Settings
from ..models.catalog import resolve
from .http_identity import http_identity
from .messages import normalized_texts, numbered_body
from .normalizers import normalizer
from .parameters import without_unkeyed

if TYPE_CHECKING:
    from .request import Data

# The fields that hold the texts of a conversation.
NORMALIZED = ("messages", "input", "arguments", "body")


def under_settings(request: Mapping[str, Data], settings: Settings) -> dict[str, object]:
    """Return a stored request under some settings: their aliases, namespace and normalizers apply, and
    tool calls are numbered.

    :param request: the request; its own namespace is dropped.
    """
    kept = {name: value for name, value in request.items() if name != "namespace"}
    new_request: dict[str, Data] = numbered_body(kept)
    namespace: str | None = settings.cache_namespace
    if "model" in request:
        model = resolve(str(request["model"]), settings.aliases)
        new_request = {**without_unkeyed(new_request), "model": model}
        namespace = _namespace_of(model, settings)
    if "method" in request:
        new_request = http_identity(
            request["method"],
            request.get("host"),  # a model's does not count
            request["path"],
            request.get("query", {}),
            request.get("body"),
        )
    normalize = normalizer(settings.cache_normalize)
    if normalize is not None:
        texts = {name: new_request[name] for name in NORMALIZED if name in new_request}
        new_request |= normalized_texts(texts, normalize)
    if namespace:
        new_request["namespace"] = namespace
    return new_request


def _namespace_of(model: str, settings: Settings) -> str | None:
    """Return a model's namespace: its endpoints' if they agree on one, else the settings'."""
    namespaces = {endpoint.namespace for endpoint in settings.endpoints if model in endpoint.models}
    if len(namespaces) == 1:
        return namespaces.pop() or settings.cache_namespace
    return settings.cache_namespace
