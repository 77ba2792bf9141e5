"""The settings that are a whole section of config.ini: prices, aliases, fallbacks, endpoints and what models can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError
from .endpoints import Endpoint
from .names import CAPABILITIES, ENDPOINT_KEYS, Setting, nearest
from .values import UNSET, check_value, read_names, read_number, refuse

__all__ = ["check_table"]


def check_table(row: Setting, value: Any, where: str) -> Any:
    """Return the value of a setting that is a whole section; mappings are made read-only.

    :param row: the setting.
    :param value: a mapping of names to texts or values from code; of endpoints, a list of ``Endpoint`` or mappings.
    :param where: where it was found, for the message.
    :raises ConfigError: if anything in it is of the wrong type or outside the allowed range.
    """
    return _TABLES[row.kind](value, where)


def _named(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping whose keys are names."""
    if not isinstance(value, Mapping):
        refuse(where, value, "a mapping")
    for name in value:
        if not isinstance(name, str) or not name.strip():
            refuse(where, name, "a model's name")
    return dict(value)


def _models_in(value: Any, where: str) -> tuple[str, ...]:
    return read_names(value, where) or refuse(where, value, "a model's name")


def _prices(value: Any, where: str) -> Mapping[str, tuple[float, float]]:
    return MappingProxyType({name: _price(f"{where} {name}", pair) for name, pair in _named(value, where).items()})


def _price(where: str, value: Any) -> tuple[float, float]:
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (tuple, list)) else []
    numbers = [read_number(part) for part in parts]
    if len(numbers) != 2 or any(number is None or number < 0 for number in numbers):
        refuse(where, value, "two numbers of at least 0: USD per million tokens, in and out")
    return numbers[0] or 0.0, numbers[1] or 0.0


def _aliases(value: Any, where: str) -> Mapping[str, str]:
    pairs = {}
    for name, model in _named(value, where).items():
        if not isinstance(model, str) or not model.strip() or "\n" in model.strip():
            refuse(f"{where} {name}", model, "a model's name")
        pairs[name] = model.strip()
    return MappingProxyType(pairs)


def _fallbacks(value: Any, where: str) -> Mapping[str, tuple[str, ...]]:
    models = _named(value, where)
    return MappingProxyType({name: _models_in(names, f"{where} {name}") for name, names in models.items()})


def _models(value: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    found = {}
    for name, given in _named(value, where).items():
        fields = _fields(CAPABILITIES, _named(given, f"{where}, [Model {name}]"), f"{where}, [Model {name}]")
        found[name] = MappingProxyType(fields)
    return MappingProxyType(found)


def _endpoints(value: Any, where: str) -> tuple[Endpoint, ...]:
    if not isinstance(value, (list, tuple)) or isinstance(value, Endpoint):
        refuse(where, value, "a list of endpoints")
    found = tuple(_endpoint(item, where) for item in value)
    names = [endpoint.name for endpoint in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: there are two endpoints {name!r}")
    return found


def _endpoint(value: Any, where: str) -> Endpoint:
    given = value._asdict() if isinstance(value, Endpoint) else value
    given = dict(given) if isinstance(given, Mapping) else refuse(where, value, "an Endpoint")
    name = given.pop("name", None)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{where}: an endpoint needs a name")
    fields = _fields(ENDPOINT_KEYS, given, f"{where}, [Endpoint {name}]")
    if fields.get("azure_endpoint") or fields.get("azure_api_version"):
        fields.setdefault("api_type", "azure")
    return Endpoint(name.strip(), **fields)


def _fields(rows: Mapping[str, Setting], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the keys of one named section; what is unset or ``None`` is left out."""
    found = {}
    for name, value in given.items():
        if name not in rows:
            raise ConfigError(f"{where}: unknown key {name!r}{nearest(name, rows)}")
        checked = UNSET if value is None else check_value(rows[name], value, f"{where} {rows[name].key}")
        if checked is not UNSET and checked is not None:
            found[name] = checked
    return found


_TABLES: dict[str, Callable[[Any, str], Any]] = {
    "aliases": _aliases,
    "endpoints": _endpoints,
    "fallbacks": _fallbacks,
    "models": _models,
    "prices": _prices,
}
