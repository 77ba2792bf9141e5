"""Placeholders for models' keys where nothing is sent, so that SDKs can be made and no process can pay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from ..support import secrets

# SDKs cannot be made without these, even in a replay, which sends nothing.
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
# Further variables from which SDKs and frameworks take a model provider's key.
OTHER_KEYS = tuple(
    """
    AI21_API_KEY ANTHROPIC_AUTH_TOKEN AWS_BEARER_TOKEN_BEDROCK AZURE_AI_API_KEY AZURE_API_KEY
    AZURE_OPENAI_API_KEY CEREBRAS_API_KEY CO_API_KEY COHERE_API_KEY DASHSCOPE_API_KEY
    DATABRICKS_TOKEN DEEPINFRA_API_KEY DEEPSEEK_API_KEY FIREWORKS_API_KEY GITHUB_MODELS_TOKEN
    GOOGLE_API_KEY GROQ_API_KEY HF_TOKEN HUGGINGFACE_API_KEY HUGGING_FACE_HUB_TOKEN
    HYPERBOLIC_API_KEY MINIMAX_API_KEY MISTRAL_API_KEY MOONSHOT_API_KEY NVIDIA_API_KEY
    NVIDIA_NIM_API_KEY OLLAMA_API_KEY OPENROUTER_API_KEY PERPLEXITYAI_API_KEY PERPLEXITY_API_KEY
    PPLX_API_KEY REPLICATE_API_TOKEN SAMBANOVA_API_KEY TOGETHERAI_API_KEY TOGETHER_API_KEY
    UPSTAGE_API_KEY VOYAGE_API_KEY WATSONX_APIKEY XAI_API_KEY ZAI_API_KEY ZHIPUAI_API_KEY
    """.split()  # noqa: SIM905 - a list has a line for each
)
PLACEHOLDER = "none-a-replay-sends-nothing"
# Characters; a dummy, such as "ollama", may be the value of another variable, too.
SHORTEST_KEY = 16


@contextlib.contextmanager
def placeholder_keys(*, replace: bool = False) -> Iterator[None]:
    """Set placeholder keys for a block.

    :param replace: ``True`` if keys that are set get one, too, so that no child process can pay.
    """
    before = {name: os.environ.get(name) for name in (*KEYS, *os.environ)}
    set_placeholder_keys(replace=replace)
    try:
        yield
    finally:
        for name, key in before.items():
            if os.environ.get(name) == PLACEHOLDER:
                del os.environ[name]
                if key is not None:
                    os.environ[name] = key


def set_placeholder_keys(*, replace: bool = False) -> None:
    """Give a placeholder to the keys that SDKs need and that are unset.

    :param replace: ``True`` if keys that are set get one, too, whatever the provider, and whatever the variable if
        the value has the form of a provider's key.
    """
    os.environ.update({name: PLACEHOLDER for name in KEYS if not os.environ.get(name)})
    if replace:
        os.environ.update(without_keys(os.environ))


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with placeholders for the keys of models' providers."""
    names = {*KEYS, *OTHER_KEYS}
    return {
        name: PLACEHOLDER
        if value and (name in names or _is_used(value) or secrets.is_models_key(value))
        else value
        for name, value in environment.items()
    }


def _is_used(value: str) -> bool:
    return len(value) >= SHORTEST_KEY and secrets.is_used(value)
