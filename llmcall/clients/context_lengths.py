"""Servers' reports of a prompt that is too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..keys.request import Data

import re

# How servers say that a prompt is too long; the tests hold a full text of each.
CONTEXT_TEXTS = re.compile(
    r"maximum context length"  # OpenAI, Azure, vLLM, SGLang, llama-cpp-python, OpenRouter, DeepSeek
    r"|tokens exceed the configured limit"  # OpenAI's gpt-5
    # OpenAI, llama.cpp, Ollama
    r"|exceeds? (?:the )?(?:available |maximum )?context (?:size|length|window)"
    r"|longer than the (?:model's context length|maximum model length)"  # SGLang, vLLM
    r"|input length \(\d+ tokens\) exceeds the maximum allowed length"  # SGLang
    r"|input (?:\(\d+ tokens\) )?is too large to process"  # llama.cpp's embeddings
    r"|prompt is too long: \d+ tokens"  # Anthropic
    r"|input token count (?:\(\d+\) )?exceeds the maximum"  # Gemini
    r"|maximum prompt length is \d+ but"  # xAI
    r"|`inputs` tokens \+ `max_new_tokens` must be",  # TGI
    re.IGNORECASE,
)
WINDOW = re.compile(
    r"(?:maximum (?:context|model|prompt|allowed) length (?:is |of |\()|context (?:size|length|window) (?:is |of |\()"
    r"|configured limit of |tokens allowed \(|tokens > |must be <= |current batch size: )(\d{1,18})",
    re.IGNORECASE,
)
PROMPT = re.compile(
    r"(?:resulted in |prompt contains (?:at least )?|request (?:has|contains) |request \(|input \(|input length \(|"
    r"prompt \(length |prompt length of |requested tokens \(|token count \(|prompt is too long: |given: )(\d{1,18})",
    re.IGNORECASE,
)
# Some servers name the sum of prompt and answer: the prompt is the sum without the answer, which they
# name in several ways.
REQUESTED = re.compile(r"you requested (?:a total of |about )?(\d{1,18}) tokens", re.IGNORECASE)
ANSWER = re.compile(
    r"(?<!\d)(\d{1,18}) (?:tokens )?(?:in|for) the (?:completion|output)", re.IGNORECASE
)


def says_too_long(message: str) -> bool:
    """Return whether a server's message says that a prompt is too long."""
    return CONTEXT_TEXTS.search(message) is not None


def lengths_in(error: dict[str, Data], message: str) -> dict[str, Data]:
    """Return the arguments of a :class:`~llmcall.ContextLengthError`, as far as the server names them.

    :param error: the error in the response's body.
    :param message: its message.
    """
    # llama.cpp's fields
    prompt = error.get("n_prompt_tokens")
    window = error.get("n_ctx")
    return {
        "prompt_tokens": prompt if type(prompt) is int else _prompt_in(message),
        "context_window": window if type(window) is int else _first_number(WINDOW, message),
    }


def _prompt_in(message: str) -> int | None:
    prompt = _first_number(PROMPT, message)
    requested = _first_number(REQUESTED, message)
    if prompt is not None or requested is None:
        return prompt
    return requested - (_first_number(ANSWER, message) or 0)


def _first_number(pattern: re.Pattern[str], message: str) -> int | None:
    match = pattern.search(message)
    return int(match[1]) if match else None
