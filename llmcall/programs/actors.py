"""Name the actors of a program by its requests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable
from typing import Any

from .. import askers, scopes
from ..display.formatting import counted
from ..notices import warn_once
from ..requests.normalizers import NORMALIZERS, normalizer
from .requests import EMBEDDINGS, ProgramRequest

Actor = Callable[["ProgramRequest"], "str | None"] | str
Normalize = Callable[[str], str]
Naming = Callable[[ProgramRequest, Normalize | None], str | None]

SYSTEM, HEADER, USER = "system", "header:", "user:"
ACTOR_FORMS = f'"{SYSTEM}", "{HEADER}NAME" or "{USER}REGEX"'
SYSTEM_ROLES = ("system", "developer")
NAME_CHARACTERS = 40  # of a text in an actor's name
UNSAFE = re.compile(r"[^\w .-]+")
# A few calls say nothing about what changes from call to call.
FEWEST_CALLS = 4
BY_USER = f'"{USER}REGEX" (the first group in the first user message)'
PROPOSAL = (
    f'name each actor by something that stays the same: --actor "{HEADER}NAME", {BY_USER} or '
    "MODULE:FUNCTION; in code, actor="
)
PROPOSAL_IF_EQUAL = (
    f'name each actor by something else than the messages: --actor "{HEADER}NAME" or MODULE:FUNCTION; '
    "in code, actor="
)


class Actors:
    """Names the actor who makes each request, and gives the actor's scope.

    :param actor: names who is asking; see :func:`llmcall.http_client`.
    :raises ValueError: if it has none of these forms, or its regular expression is invalid or has no
        group.
    """

    def __init__(self, actor: Actor | None) -> None:
        self._name_of = _naming_function(actor)
        self._is_system = actor == SYSTEM
        self._scopes: dict[str, scopes.Scope] = {}
        self._lock = threading.Lock()
        # Counts for the notice at the end, if the system message names actors.
        self._call_count = 0
        self._names: set[str] = set()
        self._openings: set[str] = set()  # digests of first user messages
        # By the digest of a request's body: who asked first.
        self._first_askers: dict[str, str] = {}
        self._has_equal_requests = False  # whether several askers made equal requests
        # By normalizer: digests of the normalized system messages.
        self._normalized_digests: dict[str, set[str]] = {name: set() for name in NORMALIZERS}

    def scope_of(
        self, request: ProgramRequest, normalize: Normalize | None
    ) -> contextlib.AbstractContextManager[Any]:
        """Return the scope of the actor who makes a request; without one, the scope stays.

        :param normalize: removes from a text what does not matter, or ``None``.
        :raises ValueError: if the user's function fails or returns something that cannot name a
            scope.
        """
        if self._name_of is None:
            return contextlib.nullcontext()
        name = self._name_of(request, normalize)
        if name is None:
            _warn_of_no_name(request)
            return contextlib.nullcontext()
        if self._is_system:
            self._count_call(request, name)
        return self._scopes.setdefault(name, scopes.scope(name))

    def _count_call(self, request: ProgramRequest, name: str) -> None:
        """Count a call, for the notice at the end."""
        with self._lock:
            self._call_count += 1
            self._openings.add(_digest(_user_text(request) or ""))
            self._note_asker(request)
            if name in self._names:
                return
            self._names.add(name)
            text = _system_text(request) or ""
            for normalizer_name, digests in self._normalized_digests.items():
                normalize = normalizer((normalizer_name,))
                digests.add(_digest(normalize(text) if normalize else text))

    def _note_asker(self, request: ProgramRequest) -> None:
        """Note whether several tasks or threads make equal requests, while only one actor is known."""
        asker = askers.current()
        if asker is None or self._has_equal_requests or len(self._names) > 1:
            return
        body = _digest(json.dumps(request.body, sort_keys=True))
        self._has_equal_requests = self._first_askers.setdefault(body, asker.name) != asker.name

    def warn(self) -> None:
        """Warn if the system message does not tell the actors apart, with a proposal."""
        with self._lock:
            calls = self._call_count
            names = len(self._names)
            openings = len(self._openings)
            has_equal_requests = self._has_equal_requests
            steady_names = [
                name
                for name, digests in self._normalized_digests.items()
                if 2 * len(digests) <= calls
            ]
        are_enough = calls >= FEWEST_CALLS
        if are_enough and 2 * names > calls:
            proposal = PROPOSAL
            if steady_names:
                name = steady_names[0]
                proposal = (
                    f'normalize it: --normalize {name}, or "NORMALIZE = {name}" below [Cache]'
                )
            warn_once(
                f"{calls} calls had {names} different system messages, and each one counts as an "
                f"actor. If an actor's system message changes from call to call, {proposal}"
            )
        elif names == 1 and ((are_enough and openings > 1) or has_equal_requests):
            proposal = PROPOSAL if openings > 1 else PROPOSAL_IF_EQUAL
            warn_once(
                f"all {calls} calls with a system message have the same one, so they count as one "
                f"actor. If there are several actors, {proposal}"
            )


def _warn_of_no_name(request: ProgramRequest) -> None:
    # Embeddings have no draws, and a GET asks no model.
    if request.method == "POST" and not _path(request).endswith(EMBEDDINGS):
        warn_once(
            f"a request names no actor (the first: {request.method} {_path(request)}), so it belongs "
            "to the surrounding scope. If several actors make such requests, name them with --actor "
            "(in code, actor=)",
            about=_warn_of_no_name,
        )


def _path(request: ProgramRequest) -> str:
    return re.sub(r"^\w+://[^/]*", "", request.url).partition("?")[0].rstrip("/")


def _naming_function(actor: Any) -> Naming | None:
    """Return the function that names the actor of a request, or ``None``."""
    if actor is None:
        return None
    if callable(actor):
        return lambda request, normalize: _name_by_function(actor, request)
    if actor == SYSTEM:
        return _system_name
    if isinstance(actor, str) and actor.startswith(HEADER):
        header = actor.removeprefix(HEADER).lower()
        return lambda request, normalize: request.headers.get(header) or None
    if isinstance(actor, str) and actor.startswith(USER):
        pattern = _pattern(actor)
        return lambda request, normalize: _user_name(pattern, request, normalize)
    raise ValueError(f"actor is {actor!r}; it must be a function of the request, {ACTOR_FORMS}")


def _name_by_function(
    function: Callable[[ProgramRequest], str | None], request: ProgramRequest
) -> str | None:
    """Return the name that the user's function gives."""
    try:
        return function(request)
    except Exception as error:
        function_name = getattr(function, "__qualname__", repr(function))
        raise ValueError(
            f"actor function {function_name} failed for {request.method} {_path(request)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _pattern(actor: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(actor.removeprefix(USER))
    except re.error as error:
        raise ValueError(
            f"actor is {actor!r}; its regular expression is invalid: {error.msg} at position {error.pos}"
        ) from None
    if not pattern.groups:
        raise ValueError(
            f"actor is {actor!r}; its regular expression has no group. Put the part that names the "
            rf'actor in parentheses, such as "{USER}You are (\w+)"'
        )
    return pattern


def _user_name(
    pattern: re.Pattern[str], request: ProgramRequest, normalize: Normalize | None
) -> str | None:
    text = _user_text(request)
    match = None if text is None else pattern.search(text)
    name = match[1].strip() if match and match[1] else ""
    name = name if normalize is None else normalize(name)
    if not name:
        return None
    is_plain = len(name) <= NAME_CHARACTERS and not UNSAFE.search(name)
    return name if is_plain else _short_name(name)


def _system_name(request: ProgramRequest, normalize: Normalize | None) -> str | None:
    """Return a name for the persona that a system message describes."""
    text = _system_text(request)
    return None if text is None else _short_name(text if normalize is None else normalize(text))


def named_by_system(body: Any) -> str | None:
    """Return the name of the persona that a request's body describes in its system message."""
    return _system_name(ProgramRequest("POST", "", {}, body), None)


def _short_name(text: str) -> str:
    """Return the beginning of a text, and a digest of the whole."""
    words = UNSAFE.sub(" ", text[: 2 * NAME_CHARACTERS]).split()
    beginning = " ".join(words)[:NAME_CHARACTERS].strip()
    return f"{beginning}-{_digest(text)[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# The texts of a request to /chat/completions, /responses, /v1/messages or /completions


def _system_text(request: ProgramRequest) -> str | None:
    body = request.body if isinstance(request.body, dict) else {}
    messages = [each for each in _messages(body) if each.get("role") in SYSTEM_ROLES]
    contents = [each.get("content") for each in messages]
    instructions = [body.get("system"), body.get("instructions")]
    return next(filter(None, map(_text, [*instructions, *contents])), None)


def _user_text(request: ProgramRequest) -> str | None:
    body = request.body if isinstance(request.body, dict) else {}
    contents = [each.get("content") for each in _messages(body) if each.get("role") == "user"]
    prompts = [body.get(name) for name in ("input", "prompt") if isinstance(body.get(name), str)]
    return next(filter(None, map(_text, [*contents, *prompts])), None)


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    values = [body.get(name) for name in ("messages", "input")]
    items = [item for value in values if isinstance(value, list) for item in value]
    return [item for item in items if isinstance(item, dict)]


def _text(content: Any) -> str:
    """Return the text of a message's content, which may have parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def warn_of_askers() -> None:
    """Warn if recorded answers went to other tasks or threads than in the recorded run, or were left
    while others were asked for.
    """
    count, asked_anew = scopes.take_misplaced()
    if asked_anew:
        verb = "was" if asked_anew == 1 else "were"
        warn_once(
            f"{counted(asked_anew, 'equal request')} {verb} asked anew, although as many recorded answers to such "
            "requests are left: tasks and threads took other shares of them than in the recorded run. Name the "
            'actors with actor=… (llmcall run --actor), such as "system"'
        )
    if count:
        warn_once(
            f"{counted(count, 'recorded answer')} to equal requests went to another task or thread "
            "than in the recorded run: the program now makes its tasks and threads in a different way or "
            "order, or the recording does not say who asked. So they may have received each other's "
            'answers. Name the actors with actor=… (llmcall run --actor), such as "system"'
        )
