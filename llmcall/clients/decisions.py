"""The Decisions API wire: writes a chat request with questions as its body (openai 3.57)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..apis.decisions import questions_in
from .responses import body_from_chat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..keys.request import Data


def decision_body_from_chat(body: Mapping[str, Data]) -> dict[str, Data]:
    """Return the body of a request: the messages are the input of its questions. The API has no other
    parameters that change the answer.
    """
    chat = {"model": body["model"], "messages": body["messages"]}
    return {
        "model": body["model"],
        "input": body_from_chat(chat)["input"],
        "questions": questions_in(body),
    }
