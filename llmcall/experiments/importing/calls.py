"""The calls of a chat API, as conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...apis.objects import object_in
from ...keys.parameters import parameters_in
from .responses import ASSISTANT

# A conversation's location, for messages, and the conversation
LocatedConversation = tuple[str, Any]
CHATS, COMPLETIONS = "/chat/completions", "/completions"  # the ends of the paths of calls


def call_conversation(
    path: str, body: Any, response: Any, scope: Sequence[str], tier: str | None = None
) -> dict[str, Any]:
    """Return a call of the API as a conversation.

    :param path: the path of its address.
    :param body: the request's body.
    :param response: the answer, or an object with an ``error``.
    :param tier: the service tier, if the answer does not name it.
    """
    fields = object_in(body)
    prompt = fields.get("prompt")
    if path.endswith(CHATS):
        messages = fields.get("messages")
    elif path.endswith(COMPLETIONS) and isinstance(prompt, str):
        messages = [{"role": "user", "content": prompt}]
    else:
        messages = None
    if not isinstance(messages, list):
        return unanswered(
            f"POST {path} with such a body is neither a chat nor a completion of one text"
        )
    params = parameters_in(
        {name: value for name, value in fields.items() if name not in ("model", "prompt")}
    )
    return {
        "scope": scope,
        "messages": [*messages, {"role": ASSISTANT}],
        "responses": [response],
        "model": fields.get("model"),
        "params": params if tier is None else {**params, "service_tier": tier},
    }


def unanswered(reason: str) -> dict[str, Any]:
    """Return a conversation that will be skipped, with the reason."""
    return {"messages": [{"role": ASSISTANT}], "responses": [{"error": reason}]}
