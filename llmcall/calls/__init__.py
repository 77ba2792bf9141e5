"""``LLMCall``: templates in, a typed value out; and ``@llm``, which makes a function of it."""

from .conversations import Answer, Conversation, SendMessage, converse
from .functions import LLMFunction, llm
from .llm_call import LLMCall
from .rows import RowJob, TableJob, row_variables

__all__ = [
    "Answer",
    "Conversation",
    "LLMCall",
    "LLMFunction",
    "RowJob",
    "SendMessage",
    "TableJob",
    "converse",
    "llm",
    "row_variables",
]
