"""Who is asking: names of actors, taken from the requests of a program."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from .requests import ProgramRequest

Actor = Callable[["ProgramRequest"], "str | None"] | str
NAME_CHARACTERS = 40  # of a system message in an actor's name
UNSAFE = re.compile(r"[^\w .-]+")


def naming(actor: Any) -> Callable[[ProgramRequest], str | None] | None:
    """Return the function that says who is asking, or ``None``."""
    if actor is None or callable(actor):
        return actor  # type: ignore[no-any-return]
    if actor == "system":
        return _system_name
    if isinstance(actor, str) and actor.startswith("header:"):
        name = actor.removeprefix("header:").lower()
        return lambda request: request.headers.get(name)
    raise ValueError(
        f'actor is {actor!r}; it must be a function of the request, "system" or "header:NAME"'
    )


def _system_name(request: ProgramRequest) -> str | None:
    """Return a name for a persona that is known by its system message: its beginning, and a digest
    of the whole.
    """
    body = request.body if isinstance(request.body, dict) else {}
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    told = [
        message.get("content")
        for message in messages
        if message.get("role") in ("system", "developer")
    ]
    text = next(filter(None, [body.get("system"), body.get("instructions"), *told]), None)
    if text is None:
        return None
    text = text if isinstance(text, str) else json.dumps(text, sort_keys=True)
    beginning = " ".join(UNSAFE.sub(" ", text[: 2 * NAME_CHARACTERS]).split())[
        :NAME_CHARACTERS
    ].strip()
    return f"{beginning}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
