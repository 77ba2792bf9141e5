"""``LLMCall``: templates in, a typed value out; and ``@llm``, which makes a function of it."""

from .answers import Answer
from .functions import LLMFunction, llm
from .llm_call import LLMCall

__all__ = ["Answer", "LLMCall", "LLMFunction", "llm"]
