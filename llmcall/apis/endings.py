"""The words for why an answer ended: which of them end an answer, and which a failure."""

from __future__ import annotations

from ..errors import APIError, ContentFilterError, ServiceError
from ..support.display import visible

# The words are in the form that ``_word`` gives them. Their sources: the types of openai 3.57, anthropic
# 2.14, google-genai 3.6, mistralai 3.7 and cohere 7.3; litellm's table of finish reasons (2026); vLLM.
ORDINARY = (
    frozenset({"stop", "tool_calls", "function_call"})
    | {"completed"}  # Responses
    | {"end_turn", "stop_sequence", "tool_use"}  # Messages
    | {"complete", "tool_call"}  # Cohere
    | {"eos", "eos_token"}  # Together, Hugging Face
)
NOTABLE = (
    frozenset({"refusal", "pause_turn"})  # Messages
    | {"steered"}  # Responses
    | {"repetition"}  # vLLM, where the request asks for it
)
CUT = (
    frozenset({"length"})
    | {"max_tokens"}  # Messages, Gemini, Cohere
    | {"max_output_tokens", "max_messages", "incomplete"}  # Responses
    | {"model_length"}  # Mistral
    | {"model_context_window_exceeded", "compaction"}  # Messages
)
FILTERED = (
    frozenset({"content_filter"})
    | {"content_filtered", "guardrail_intervened"}  # Bedrock
    | {"error_toxic"}  # Cohere
    | {"sensitive"}  # Z.ai
    | {"safety", "recitation", "blocklist", "prohibited_content", "spii", "model_armor"}  # Gemini
    | {"image_safety", "image_prohibited_content", "image_recitation"}
)


def is_ordinary(reason: object) -> bool:
    """Return whether the reason, or its absence, needs no mention."""
    return reason is None or (isinstance(reason, str) and _word(reason) in ORDINARY)


def is_cut(reason: object) -> bool:
    """Return whether the reason is a limit of tokens."""
    return isinstance(reason, str) and _word(reason) in CUT


def is_filtered(reason: object) -> bool:
    """Return whether the reason is a provider's filter.

    Gemini's compatible API adds its own word: ``content_filter: SAFETY``.
    """
    return isinstance(reason, str) and _word(reason.partition(":")[0]) in FILTERED


def is_refused(reason: object) -> bool:
    """Return whether the provider filtered the answer, or the model refused."""
    return is_filtered(reason) or (isinstance(reason, str) and _word(reason) == "refusal")


def ending_problem(reason: object, field: str) -> tuple[type[APIError], str] | None:
    """Return the error's class and message if this ending means a failure, else ``None``.

    Any word that is not known to end an answer is a failure, such as ``insufficient_system_resource``
    (DeepSeek) or ``abort`` (vLLM, SGLang): half an answer would replay for ever.

    :param reason: as the server gave it; ``None`` or an empty text is accepted.
    :param field: the reason's name in the API: ``"finish_reason"``, ``"stop_reason"``.
    """
    if reason is None or reason == "":
        return None
    if not isinstance(reason, str):
        return ServiceError, f"a malformed answer: its {field} is not a string ({reason!r:.60})"
    shown = f"{field} {visible(reason):.60}"
    if is_filtered(reason):
        return ContentFilterError, f"the provider filtered the answer ({shown})"
    if _word(reason) in ORDINARY | NOTABLE | CUT:
        return None
    return ServiceError, f"the answer broke off ({shown})"


def _word(reason: str) -> str:
    """Return a reason without differences of case and hyphens."""
    return reason.strip().lower().replace("-", "_")
