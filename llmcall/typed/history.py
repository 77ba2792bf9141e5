"""The messages between a call's system message and its question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import TemplateError
from .template import missing_variable


class History(NamedTuple):
    """Worked examples, or a conversation so far.

    :param examples: messages; a content that is a text is a template.
    :param variable: the name of the variable that holds a conversation, or ``None``.
    """

    examples: tuple[Mapping[str, Any], ...] = ()
    variable: str | None = None

    @classmethod
    def of(cls, history: Any) -> History:
        """Return the history of a call.

        :param history: a list of messages, the name of a variable, or ``None``.
        :raises TypeError: if it is anything else.
        """
        if history is None:
            return cls()
        if isinstance(history, str):
            return cls(variable=history)
        return cls(examples=tuple(map(dict, _messages(history, "history"))))

    @property
    def is_given(self) -> bool:
        """Return whether there may be messages."""
        return self.variable is not None or bool(self.examples)

    def conversation(self, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the conversation in the variable.

        :raises TemplateError: if the variable is missing.
        :raises TypeError: if it is not a list of messages.
        """
        if self.variable is None:
            return []
        if self.variable not in variables:
            raise TemplateError(f"history: {missing_variable(self.variable, variables)}")
        return list(_messages(variables[self.variable], f"the variable {self.variable!r}"))


def _messages(value: Any, name: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{name} is {type(value).__name__}; it must be a list of messages, such as "
            "{'role': 'user', 'content': 'Bread?'}"
        )
    for position, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TypeError(
                f"{name}[{position}] is {message!r:.60}; it must be a message, a dict with a role and a content"
            )
    return value
