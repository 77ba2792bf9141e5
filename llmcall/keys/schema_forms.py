"""Two forms of a JSON schema: one for all versions of pydantic, and the one for strict structured output."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .plain_data import plain
from .request import Data

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_NAMED_SCHEMAS = {"properties", "$defs", "patternProperties"}
_SCHEMAS = {
    *("anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
    *("items", "prefixItems", "contains", "additionalProperties"),
}
# Keywords that differ between versions of pydantic 2: titles, OpenAPI's discriminator, and propertyNames,
# which came with 2.10.
_UNSTABLE = {"title", "discriminator", "propertyNames"}
_STRICT_KEYWORDS = {
    *("type", "enum", "anyOf", "$ref", "description"),
    *("properties", "required", "additionalProperties"),  # of objects
    *("items", "minItems", "maxItems"),  # of arrays
    *("pattern", "format"),  # of strings
    *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),  # of numbers
}
_STRICT_FORMATS = {
    *("date-time", "time", "date", "duration"),
    *("email", "hostname", "ipv4", "ipv6", "uuid"),
}
_NOT_STRICT = {"allOf", "prefixItems", "patternProperties", "not", "if", "then", "else", "contains"}


def canonical_schema(schema: Mapping[str, Data]) -> dict[str, Data]:
    """Return a schema in one form for every version of pydantic 2.

    Keywords are sorted, and properties keep their order. Titles are dropped. ``const`` becomes an
    ``enum`` of one value. ``$defs`` have the classes' own names, numbered if two classes share one.
    Whole numbers have no fraction.

    :param schema: a schema as pydantic writes it, its definitions under ``$defs``.
    """
    names: dict[str, str] = {}  # pydantic's names of definitions, in the order of use, and ours

    def canonical_node(node: object) -> Data:
        """Return the canonical form of a schema, or of several."""
        if isinstance(node, list):
            return [canonical_node(element) for element in node]
        if not isinstance(node, Mapping):
            return node
        return {
            keyword: keyword_value(keyword, value)
            for keyword, value in sorted(stable(node).items())
        }

    def keyword_value(keyword: str, value: Data) -> Data:
        """Return the canonical form of a keyword's value."""
        if keyword in _NAMED_SCHEMAS:
            return {name: canonical_node(item) for name, item in value.items()}
        if keyword in _SCHEMAS:
            return canonical_node(value)
        return f"#/$defs/{definition_name(value)}" if keyword == "$ref" else plain(value, keyword)

    def definition_name(reference: str) -> str:
        """Return a definition's name, which is its class's. pydantic adds the module if two classes share
        a name.
        """
        key = reference.removeprefix("#/$defs/")
        if key not in names:
            bare_key = re.sub(r"-(?:Input|Output)(?=__|$)|__\d+$", "", key)
            class_name = bare_key.rpartition("__")[2] or key
            numbered_names = (f"{class_name}_{count}" for count in range(2, len(names) + 3))
            names[key] = next(
                name for name in (class_name, *numbered_names) if name not in names.values()
            )
        return names[key]

    root = canonical_node(
        {keyword: value for keyword, value in schema.items() if keyword != "$defs"}
    )
    definitions: dict[str, Data] = {}
    while waiting := [name for name in names if names[name] not in definitions]:
        for name in waiting:
            definitions[names[name]] = canonical_node(schema["$defs"][name])
    return {"$defs": dict(sorted(definitions.items())), **root} if definitions else root


def stable(node: Mapping[str, Data]) -> dict[str, Data]:
    """Return a single schema in the form that all versions share."""
    node = {keyword: value for keyword, value in node.items() if keyword not in _UNSTABLE}
    if node.get("additionalProperties") is True:  # written since pydantic 2.11
        del node["additionalProperties"]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "enum" in node:
        node.pop("type", None)
        types = _types_of(node["enum"])
        node |= {"type": types[0]} if len(types) == 1 else {}
    # All items of a NamedTuple are required, whatever their defaults; keys depend on it.
    if "prefixItems" in node:
        node["prefixItems"] = [
            {name: item[name] for name in item if name != "default"} for item in node["prefixItems"]
        ]
        node["minItems"] = node.get("maxItems", 0)
    return node


def _types_of(values: list[object]) -> list[str]:
    """Return the JSON types of an ``enum``'s values; an integer among numbers is a number."""
    types = sorted({_JSON_TYPES[type(value)] for value in values if type(value) in _JSON_TYPES})
    return [name for name in types if name != "integer"] if "number" in types else types


def strict(schema: Mapping[str, Data]) -> dict[str, Data]:
    """Return a copy of a schema in the form for strict structured output.

    Every object is closed and requires all its properties. Defaults, and keywords that strict mode
    refuses (such as text lengths), are left out, and are checked when the answer is read. A ``$ref`` has
    no other keywords beside it.

    :raises ValueError: if the strict form cannot express the schema.
    """
    definitions = schema.get("$defs", {})
    root = _strict(rooted(schema), definitions)
    if definitions:
        root["$defs"] = {
            name: _strict(definition, definitions) for name, definition in definitions.items()
        }
    return root


def _strict(schema: object, definitions: Mapping[str, object]) -> dict[str, Data]:
    if not isinstance(schema, Mapping) or _NOT_STRICT.intersection(schema):
        raise ValueError(schema)
    node = {"anyOf" if keyword == "oneOf" else keyword: value for keyword, value in schema.items()}
    node = {keyword: value for keyword, value in node.items() if _is_strict(keyword, value)}
    if "$ref" in node and len(node) > 1:
        return _strict(_resolved(node, definitions), definitions)
    if "enum" in node and "type" not in node:
        node["type"] = _types_of(node["enum"])
    is_object = node.get("type") == "object"
    is_open = is_object and (
        "properties" not in node or isinstance(node.get("additionalProperties"), Mapping)
    )
    if is_open or not {"type", "anyOf", "$ref"}.intersection(node):
        raise ValueError(schema)
    if is_object:
        properties = {name: _strict(item, definitions) for name, item in node["properties"].items()}
        node |= {
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    if node.get("type") == "array":
        node["items"] = _strict(node.get("items"), definitions)
    if "anyOf" in node:
        node["anyOf"] = [_strict(item, definitions) for item in node["anyOf"]]
    return node


def _is_strict(keyword: str, value: Data) -> bool:
    if keyword == "pattern":
        return "(?" not in value  # lookarounds are refused
    return value in _STRICT_FORMATS if keyword == "format" else keyword in _STRICT_KEYWORDS


def rooted(schema: Mapping[str, Data]) -> dict[str, Data]:
    """Return a schema whose root is not a reference, as a recursive model's is; ``$defs`` stay."""
    if "$ref" not in schema:
        return dict(schema)
    return {**_resolved(schema, schema["$defs"]), "$defs": schema["$defs"]}


def _resolved(node: Mapping[str, Data], definitions: Mapping[str, Data]) -> dict[str, Data]:
    """Return a reference's definition; keywords beside the reference take precedence."""
    siblings = {
        keyword: value for keyword, value in node.items() if keyword not in ("$ref", "$defs")
    }
    return {**definitions[node["$ref"].removeprefix("#/$defs/")], **siblings}
