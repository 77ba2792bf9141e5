"""A reader of VCR's cassettes: a program's calls as conversations."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ...apis.bodies import events_of, read_object
from ...apis.chunks import Assembler
from ...apis.objects import object_in, objects_in
from ...errors import CacheError, ConfigError, ServiceError
from .calls import LocatedConversation, call_conversation, unanswered

# Replay looks for a program's calls in this scope.
SCOPE = ("run",)
GZIP = b"\x1f\x8b"  # begins compressed data
OK = range(200, 300)  # of a status


def calls_in(path: str) -> Iterator[LocatedConversation]:
    """Yield the calls in a cassette of VCR's, in order.

    :raises CacheError: if it is not such a cassette.
    :raises ConfigError: if PyYAML is not installed (the extra ``yaml``).
    """
    for number, interaction in enumerate(_interactions(path), 1):
        yield f"{path}, interaction {number}", _conversation(interaction)


def _conversation(interaction: dict[str, Any]) -> dict[str, Any]:
    """Return a call as a conversation."""
    request, response = (object_in(interaction.get(name)) for name in ("request", "response"))
    address = urlsplit(str(request.get("uri"))).path
    try:
        body = read_object(_bytes(request.get("body")) or b"{}", "request")
        answer = _answer(response, is_stream=bool(body.get("stream")))
    except (ServiceError, zlib.error) as error:
        return unanswered(f"{request.get('method')} {address}: {error}")
    return call_conversation(address, body, answer, SCOPE)


def _interactions(path: str) -> list[dict[str, Any]]:
    try:
        from ...support.libraries import yaml
    except ImportError as error:
        raise ConfigError(
            "VCR's cassettes are YAML; to read them, install PyYAML, or llmcall with the extra 'yaml'"
        ) from error
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    with open(path, "rb") as file:
        try:
            cassette = yaml.load(file, loader)
        except yaml.YAMLError as error:
            raise CacheError(f"{path}: it is not YAML: {error}") from error
    interactions = object_in(cassette).get("interactions")
    if not isinstance(interactions, list):
        raise CacheError(f"{path}: it is not a cassette of VCR's: it has no list of interactions")
    return objects_in(interactions)


def _answer(response: dict[str, Any], *, is_stream: bool) -> dict[str, Any]:
    """Return the response of a call; a stream's chunks are assembled.

    :raises ServiceError: if it has no answer.
    """
    content = _bytes(response.get("body"))
    code = object_in(response.get("status")).get("code") or response.get("status_code")
    if code is not None and code not in OK:
        return {"error": f"the server answered {code}: {content[:200].decode(errors='replace')}"}
    if not (is_stream and content.lstrip().startswith((b"data:", b":", b"event:"))):
        return read_object(content, "answer")
    assembler = Assembler()
    for event in events_of(content):
        assembler.add(event)
    return assembler.response()


def _bytes(body: Any) -> bytes:
    """Return a body as uncompressed bytes."""
    content = body.get("string") if isinstance(body, dict) else body
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    data: bytes = content.encode() if isinstance(content, str) else content or b""
    return zlib.decompress(data, wbits=31) if data.startswith(GZIP) else data
