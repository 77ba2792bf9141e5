"""An HTTP request that is recorded like a function's result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import secrets
from ..keys.http_identity import NOT_COUNTED, api_path, http_identity
from ..keys.plain_data import plain
from .calls import normalized, prepare_function, result_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..clients.base import LLMClient


async def http_call(
    method: str,
    host: str,
    path: str,
    query: Sequence[tuple[str, str]],
    body: Any,
    transport: Any,
    client: LLMClient,
    model: str | None,
) -> Any:
    """Return the response of an HTTP request; one without a body is sent whenever that is
    allowed.

    Fields of the query and the body that are credentials by their names are neither recorded nor
    part of the key.

    :param method: with ``host``, ``path``, ``query`` and ``body`` (plain data, or ``None``) what
        identifies the request.
    :param transport: sends it and returns plain data.
    :param client: counts a request with a body in usage, budgets and limits; its settings decide
        where it is recorded, and in which mode.
    :param model: the one that is asked; ``None`` if the request asks none: it counts as a call only.
    :raises CacheError: for a body with a field that may hold a credential by its name.
    """
    settings, has_body = client.settings, body is not None
    address = f"{method} {host}{path}"
    recorded_body = secrets.without_credentials(plain(body, "the body"))
    secrets.refuse_named(recorded_body, settings.cassette_allow, address)
    if api_path(path, body) is not None:
        query = [(name, value) for name, value in query if name not in NOT_COUNTED]
    recorded_query: dict[str, list[str]] = {}
    for name, value in secrets.without_query_credentials(query, address):
        recorded_query.setdefault(name, []).append(value)
    call = prepare_function(
        "http",
        http_identity(method, host, path, recorded_query, normalized(recorded_body, settings)),
        settings,
        transport,
        model=(model or host) if has_body else "",
        body=body if isinstance(body, dict) else None,
        name=f"{method} {path}",
        maker=client if has_body else None,
        asks_model=model is not None,
        is_live=not has_body,
    )
    return await result_of(call)
