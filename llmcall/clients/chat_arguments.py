"""The arguments of a chat call by name, as ``help()`` and notebooks show them.

The method itself takes what it is given: Python would fill in thirty names at each call, most with ``None``.
"""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..core.reply import Reply
    from .base import LLMClient

Method = TypeVar("Method", bound="Callable[..., Any]")


def shown_as(declared: Callable[..., object]) -> Callable[[Method], Method]:
    """Decorate a method so that it shows the arguments and the docstring of a declaration."""
    return partial(update_wrapper, wrapped=declared, assigned=("__doc__",))  # type: ignore[return-value]


def send_message(
    self: LLMClient,
    current_messages: str | Sequence[Mapping[str, object]],
    *,
    model: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    n: int | None = None,
    response_format: object = None,
    tools: Sequence[object] | None = None,
    tool_choice: object = None,
    reasoning_effort: str | None = None,
    extra_body: Mapping[str, object] | None = None,
    timeout: float | None = None,
    deadline: float | None = None,
    max_attempts: int | None = None,
    waiting_time: float | None = None,
    exponential_backoff_factor: float | None = None,
    sample: str | int | None = None,
    cache: bool | None = None,
    on_error: str | None = None,
    dedent_messages: bool = False,
    **params: object,
) -> Reply | None:
    """Call a model, or return its recorded answer.

    :param current_messages: a list of ``{"role", "content"}`` dicts, or a string, which means
        one user message. It is never changed.
    :param model: the model's name; ``None`` means the configured one.
    :param temperature: a parameter of the chat completions API. So are ``max_tokens``,
        ``top_p``, ``frequency_penalty``, ``presence_penalty``, ``stop``, ``seed``, ``n``,
        ``response_format`` (a pydantic class works too), ``tools`` (functions work too),
        ``tool_choice``, ``reasoning_effort`` and ``extra_body``; pass any other in ``params``.
        ``None`` means the configured default; a parameter without a default is not sent. An answer
        that does not fit its ``response_format`` (a class, a strict schema, or JSON mode) counts as
        a failed attempt, unless the token limit cut it or it calls a tool.
    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call, with its retries, its waits and the time to
        read the answer.
    :param max_attempts: the number of attempts, the first included. ``waiting_time`` is the
        first wait between them, in seconds; each further wait is
        ``exponential_backoff_factor`` times as long.
    :param sample: the draw to take, instead of the next one.
    :param cache: ``False`` bypasses the disk cache.
    :param on_error: the outcome of a call that fails after all retries: ``"raise"`` raises the exception,
        ``"return"`` returns it, and ``"none"`` logs it and returns ``None``.
    :param dedent_messages: ``True`` removes the common indentation of every text.
    :returns: the reply, or ``None`` if the call failed after all retries and ``on_error`` is ``"none"``.
    :raises TypeError, ValueError: if an argument is wrong, before any call.
    :raises ConfigError: if a setting, such as the key, is missing or wrong.
    :raises CacheMissError: if the mode is ``replay`` and the answer is not recorded.
    """
