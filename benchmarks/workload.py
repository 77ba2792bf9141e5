"""The question of all cases: a user message under a system prompt of 400 characters."""

from __future__ import annotations

MODEL = "gpt-6-luna"
DRAW = "Draw"  # how a question begins to which each call gets another answer
API_KEY = "sk-benchmark"  # the stub server asks for none; the SDK does

_SENTENCE = "You are a buyer at a market day, thrifty, curious and polite, and you answer in one short sentence. "
SYSTEM = (_SENTENCE * 5)[:400]


def question(number: int, draws: bool = False) -> str:
    """Return the user message of a number; different numbers give different requests.

    :param draws: whether the server gives each call another answer.
    """
    return f"{DRAW if draws else 'Question'} {number}: would you buy a loaf of bread for {number % 17} coins?"


def messages(number: int, draws: bool = False) -> list[dict[str, str]]:
    """Return the messages of a number."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question(number, draws)},
    ]


def answer_to(text: str) -> str:
    """Return what the stub server answers to a user message."""
    return f"No, thank you, not today. I was asked this: {text}"


def completion(text: str) -> dict[str, object]:
    """Return the stub server's response to a user message, in the form of the chat completions API."""
    message: dict[str, object] = {
        "role": "assistant",
        "content": answer_to(text),
        "refusal": None,
        "annotations": [],
    }
    return {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-6-luna",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 102, "completion_tokens": 31, "total_tokens": 133},
        "service_tier": "default",
        "system_fingerprint": "fp_benchmark",
    }
