"""A function's arguments by the names of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..support.arguments import bound

OBJECTS = ("self", "cls")  # names of a first parameter that is the method's object or class


class Parameters:
    """The parameters of a function, which name each call's arguments.

    :ivar name: the function's name.
    :ivar signature: the function's signature.
    :ivar var_keyword: the name of the ``**`` parameter, or ``None``.
    :ivar defaults: the other parameters' defaults by name; ``signature.empty`` without a default.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        import inspect  # takes milliseconds, and a call without functions does not need it

        self.name = getattr(function, "__name__", repr(function))
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters
        # Whether each parameter takes one argument, by position or by name.
        self._are_plain = all(
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values()
        )
        self.var_keyword: str | None = None
        self.defaults: dict[str, object] = {}
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                self.var_keyword = name
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self.defaults[name] = ()
            else:
                self.defaults[name] = parameter.default

    def arguments(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> dict[str, object]:
        """Return all arguments of a call by name, including defaults.

        :raises TypeError: if the function does not take them.
        """
        given = {**dict(zip(self.defaults, args, strict=False)), **kwargs}
        is_each_once = (
            len(args) + len(kwargs) == len(given) and given.keys() == self.defaults.keys()
        )
        if self._are_plain and is_each_once:
            return {**self.defaults, **given}  # bind takes several times as long
        named = bound(self.name, self.signature, args, kwargs)
        named.apply_defaults()
        return named.arguments
