"""A transport through whatever a test has put in the place of the SDK's class."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .sdk import failures, raise_mapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..types import Request

__all__ = ["PatchedTransport", "is_patched"]


def is_patched(*names: str) -> bool:
    """Return whether any of the SDK's classes, or what makes a completion, is not the SDK's own.

    :param names: of classes of ``openai``, such as ``"OpenAI"``.
    """
    import openai
    from openai.resources.chat import completions

    makers = [completions.Completions.create, completions.AsyncCompletions.create]
    return any(not _own(getattr(openai, name), type) for name in names) or not all(map(inspect.isfunction, makers))


def _own(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and str(getattr(value, "__module__", "")).partition(".")[0] == "openai"


class PatchedTransport:
    """Call ``chat.completions.create`` of the class that is there at the time, and take its ``model_dump()``.

    :param name: of the class, such as ``"OpenAI"``; its asynchronous twin is ``Async…``.
    :param arguments: of its constructor.
    :param endpoint: the endpoint's name.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], endpoint: str) -> None:
        self._name = name
        self._arguments = arguments
        self._endpoint = endpoint

    def send(self, request: Request, timeout: float | None) -> Any:
        """Return what stands for the response."""
        import openai

        try:
            sdk = getattr(openai, self._name)(**self._arguments, timeout=timeout)
            return sdk.chat.completions.create(**request.body).model_dump()
        except failures() as error:
            raise_mapped(error, self._endpoint)

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Return what stands for the response, as :meth:`send`."""
        import openai

        try:
            sdk = getattr(openai, f"Async{self._name}")(**self._arguments, timeout=timeout)
            completion = sdk.chat.completions.create(**request.body)
            return (await completion if inspect.isawaitable(completion) else completion).model_dump()
        except failures() as error:
            raise_mapped(error, self._endpoint)
