"""The forms of a JSON schema: pure functions on plain data.

Two forms: the canonical one says the same for every pydantic 2, since it enters request keys and prompts; the strict
one is what structured output takes, by OpenAI's guide "Structured model outputs", section "Supported schemas" (February
2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["canonical", "rooted", "strict", "types_of"]

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_NAMED_SCHEMAS = {"properties", "$defs", "patternProperties"}
_SCHEMA_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_ONE_SCHEMA = {"items", "additionalProperties", "not", "contains", "if", "then", "else"}
# Not every pydantic 2 writes these, or they differ: titles and OpenAPI's discriminator; propertyNames came with 2.10.
_UNSTABLE = {"title", "discriminator", "propertyNames"}
_STRICT_KEYWORDS = {
    *("type", "enum", "anyOf", "properties", "required", "additionalProperties", "items", "$ref", "description"),
    *(
        "pattern",
        "format",
        "multipleOf",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "minItems",
        "maxItems",
    ),
}
_STRICT_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_NOT_STRICT = {"allOf", "prefixItems", "patternProperties", "not", "if", "then", "else", "contains"}


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema in the form that strict structured output takes.

    Every object is closed and requires all its properties; defaults and the keywords that strict mode refuses (lengths
    of texts) go, as reading the answer checks them anyway; a ``$ref`` stands alone.

    :raises ValueError: for what the strict form cannot say, naming its place.
    """
    definitions = schema.get("$defs", {})
    root = _strict(rooted(schema), definitions, "the schema")
    if root.get("type") != "object":
        raise ValueError("the schema is no object")
    if definitions:
        root["$defs"] = {name: _strict(found, definitions, name) for name, found in definitions.items()}
    return root


def canonical(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema as every pydantic 2 would write it.

    Keywords are sorted, properties keep their order; no titles; ``const`` is an ``enum`` of one; ``$defs`` bear the
    classes' own names, numbered where two classes share one; whole numbers have no fraction.

    :param schema: a schema as pydantic writes it, its definitions under ``$defs``.
    """
    normalizer = _Normalizer()
    root = normalizer.schema({keyword: value for keyword, value in schema.items() if keyword != "$defs"})
    definitions: dict[str, Any] = {}
    while waiting := [name for name in normalizer.names if normalizer.names[name] not in definitions]:
        for name in waiting:
            definitions[normalizer.names[name]] = normalizer.schema(schema["$defs"][name])
    return {"$defs": dict(sorted(definitions.items())), **root} if definitions else root


class _Normalizer:
    """Rewrite one schema after another; ``names`` maps pydantic's names of definitions to ours, in the order of use."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def schema(self, node: Any) -> Any:
        """Return the form of a schema."""
        if not isinstance(node, Mapping):
            return node
        node = _stable(node)
        return {keyword: self.keyword(keyword, node[keyword]) for keyword in sorted(node)}

    def keyword(self, keyword: str, value: Any) -> Any:
        """Return the form of a keyword's value."""
        if keyword in _NAMED_SCHEMAS:
            return {name: self.schema(item) for name, item in value.items()}
        if keyword in _SCHEMA_LISTS:
            return [self.schema(item) for item in value]
        if keyword in _ONE_SCHEMA:
            return self.schema(value)
        return f"#/$defs/{self.name(value)}" if keyword == "$ref" else _short_numbers(value)

    def name(self, reference: str) -> str:
        """Name a definition by its class; pydantic puts the module before the names of classes that share one."""
        key = reference.removeprefix("#/$defs/")
        if key not in self.names:
            own = re.sub(r"-(?:Input|Output)(?=__|$)|__\d+$", "", key).rpartition("__")[2] or key
            used = list(self.names.values())
            numbered = (f"{own}_{count}" for count in range(2, len(used) + 3))
            self.names[key] = own if own not in used else next(name for name in numbered if name not in used)
        return self.names[key]


def _stable(node: Mapping[str, Any]) -> dict[str, Any]:
    """Bring one schema to the form that all versions share."""
    node = {keyword: value for keyword, value in node.items() if keyword not in _UNSTABLE}
    if len(node.get("allOf", ())) == 1:  # a reference with siblings, before pydantic 2.9
        node = {**node.pop("allOf")[0], **node}
    if node.get("additionalProperties") is True:  # written since pydantic 2.11
        del node["additionalProperties"]
    if isinstance(node.get("description"), str):  # early versions keep a docstring's indentation
        node["description"] = _cleaned(node["description"])
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "enum" in node:
        node = _typed_enum(node)
    if "prefixItems" in node:  # of a NamedTuple: defaults and minItems, as pydantic writes them since 2.1
        node["prefixItems"] = [{name: item[name] for name in item if name != "default"} for item in node["prefixItems"]]
        node["minItems"] = node.get("maxItems", 0)
    return node


def _cleaned(text: str) -> str:
    from inspect import cleandoc

    return cleandoc(text)


def _typed_enum(node: dict[str, Any]) -> dict[str, Any]:
    types = types_of(node["enum"])
    return {
        **{keyword: value for keyword, value in node.items() if keyword != "type"},
        **({"type": types[0]} if len(types) == 1 else {}),
    }


def types_of(values: list[Any]) -> list[str]:
    """List the JSON types of an ``enum``'s values; an integer among numbers is a number."""
    types = sorted({_JSON_TYPES[type(value)] for value in values if type(value) in _JSON_TYPES})
    return [name for name in types if name != "integer"] if "number" in types else types


def _short_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _short_numbers(item) for name, item in value.items()}
    return [_short_numbers(item) for item in value] if isinstance(value, (list, tuple)) else value


def rooted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose root is no reference (of a recursive model it is one), its definitions kept."""
    if "$ref" not in schema:
        return dict(schema)
    return {**_resolved(schema, schema["$defs"]), "$defs": schema["$defs"]}


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Put a reference's definition in its place; what stands beside the reference goes before it."""
    siblings = {keyword: value for keyword, value in node.items() if keyword not in ("$ref", "$defs")}
    return {**definitions[node["$ref"].removeprefix("#/$defs/")], **siblings}


def _strict(schema: Any, definitions: Mapping[str, Any], place: str) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or (refused := _NOT_STRICT.intersection(schema)):
        raise ValueError(
            f"{place} is {schema!r}" if not isinstance(schema, Mapping) else f"{place} uses {min(refused)}"
        )
    node = {"anyOf" if keyword == "oneOf" else keyword: value for keyword, value in schema.items()}
    node = {
        keyword: value for keyword, value in node.items() if keyword in _STRICT_KEYWORDS and _is_strict(keyword, value)
    }
    if "$ref" in node and len(node) > 1:
        return _strict(_resolved(node, definitions), definitions, place)
    if "enum" in node and "type" not in node:
        node["type"] = types_of(node["enum"])
    if not {"type", "anyOf", "$ref"}.intersection(node):
        raise ValueError(f"{place} allows any value")
    return _strict_inside(node, definitions, place)


def _strict_inside(node: dict[str, Any], definitions: Mapping[str, Any], place: str) -> dict[str, Any]:
    if node.get("type") == "object":
        if "properties" not in node or isinstance(node.get("additionalProperties"), Mapping):
            raise ValueError(f"{place} is an open dict")
        inside = {name: _strict(item, definitions, f"{place}.{name}") for name, item in node["properties"].items()}
        node |= {"properties": inside, "required": list(inside), "additionalProperties": False}
    if node.get("type") == "array":
        node["items"] = _strict(node.get("items"), definitions, f"{place}[]")
    if "anyOf" in node:
        node["anyOf"] = [_strict(item, definitions, place) for item in node["anyOf"]]
    return node


def _is_strict(keyword: str, value: Any) -> bool:
    if keyword == "pattern":
        return "(?" not in value  # lookarounds are refused
    return keyword != "format" or value in _STRICT_FORMATS
