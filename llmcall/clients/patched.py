"""A transport through whatever a test has put in the place of the SDK's class."""

from __future__ import annotations

import inspect
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from .sdk_errors import failures, raise_mapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..types import Request

__all__ = ["PatchedTransport", "is_patched"]


def is_patched(*names: str) -> bool:
    """Return whether any of the SDK's classes, or what makes a completion, is not the SDK's own.

    :param names: of classes of ``openai``, such as ``"OpenAI"``.
    """
    if "openai" not in sys.modules:  # what is not imported is not replaced, and importing it takes a second
        return False
    import openai
    from openai.resources.chat import completions

    makers = (completions.Completions.create, completions.AsyncCompletions.create)
    replaced = any(not _own(getattr(openai, name), type) for name in names)
    return replaced or not all(_own(maker, FunctionType) for maker in makers)


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
            return sdk.chat.completions.create(**_arguments(request)).model_dump()
        except failures() as error:
            raise_mapped(error, self._endpoint)

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Return what stands for the response, as :meth:`send`."""
        import openai

        try:
            sdk = getattr(openai, f"Async{self._name}")(**self._arguments, timeout=timeout)
            completion = await _awaited(sdk.chat.completions.create(**_arguments(request)))
            return await _awaited(completion.model_dump())
        except failures() as error:
            raise_mapped(error, self._endpoint)


def _arguments(request: Request) -> dict[str, Any]:
    return {**request.body, **({"extra_headers": dict(request.headers)} if request.headers else {})}


async def _awaited(value: Any) -> Any:
    """Return a value that a mock may have made awaitable, or not."""
    return await value if inspect.isawaitable(value) else value
