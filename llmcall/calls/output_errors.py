"""The error of a call whose last answer cannot be used: what to know, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..display.formatting import shortened
from ..errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..types import Reply


def final_error(
    error: OutputError,
    replies: Sequence[Reply],
    variables: Mapping[str, Any],
    *,
    is_recorded: bool,
    unstructured_model: str | None,
) -> OutputError:
    """Return the error that a call raises after its last answer.

    Its message gives the answer, what was expected, the scope, the item, the number of tries, and
    how to ask again.

    :param error: why the last answer cannot be used.
    :param replies: all answers.
    :param variables: the values that the templates used.
    :param is_recorded: whether the cache keeps the answers.
    :param unstructured_model: the model's name if structured output was not used, because the model
        is not known to support it; else ``None``.
    """
    last = replies[-1]
    lines = [str(error), f"answer: {shortened_repr(error.text, 300)}"]
    if error.expected:
        lines.append(f"expected: {shortened(error.expected, 300)}")
    if unstructured_model is not None:
        lines.append(
            f"structured output was not used, because the model {unstructured_model!r} is not known to "
            "support it. If its server does, write STRUCTURED_OUTPUT = yes below "
            f"[Model {unstructured_model}] in config.ini"
        )
    if last.finish_reason == "length":
        lines.append("the answer was cut at the token limit: raise max_tokens")
    if last.sample is not None:
        lines.append(f"scope: {last.sample}")
    if variables:
        item = ", ".join(f"{name}={shortened_repr(value)}" for name, value in variables.items())
        lines.append(f"item: {item}")
    lines.append(_tries_line(replies, is_recorded=is_recorded or last.cached))
    final = OutputError("\n  ".join(lines), text=error.text, expected=error.expected)
    final.__cause__ = error.__cause__
    return final


def _tries_line(replies: Sequence[Reply], *, is_recorded: bool) -> str:
    """Return the line that counts the tries, and names the records to delete."""
    tries_text = "after 1 try" if len(replies) == 1 else f"after {len(replies)} tries"
    if not is_recorded:
        return tries_text
    keys = " ".join(reply.cache_key[:12] for reply in replies)
    return f"{tries_text}, recorded; to ask again, delete the records: llmcall cache delete {keys}"


def shortened_repr(value: Any, most: int = 60) -> str:
    """Return a value as Python shows it, cut to some characters."""
    return shortened(repr(value), most)
