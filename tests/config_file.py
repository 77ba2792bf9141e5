"""The top-level config.ini, as the table of settings says it: ``python tests/config_file.py >
config.ini``.
"""

from __future__ import annotations

from llmcall.config.endpoints import ENDPOINT_KEYS
from llmcall.config.sections import MODEL_KEYS
from llmcall.config.settings import SETTINGS

HEAD = """\
# Every setting of llmcall with its default. Copy this file into your project and keep only what you change.
# After a space, # or ; starts a comment. An indented line continues the value above it.
# ${NAME} in a value is an environment variable (or one from .env). Write $${NAME} for the text ${NAME} itself.
# An empty value sets nothing. "none" means no value, unless "none" is one of the listed words.
# A relative path starts from this file's folder.
"""


def example_file() -> str:
    """Return a config.ini with every setting, its default, and what it is for."""
    lines: list[str] = []
    section = ""
    for row in SETTINGS.values():
        named = {"endpoints": ENDPOINT_KEYS, "models": MODEL_KEYS}.get(row.name, {})
        if row.section != section and not named:
            lines += ["", f"[{row.section}]"]
        section = row.section
        if named:
            lines += ["", f"# {row.help}", f"# {row.example}"]
            for each in named.values():
                lines += [f"# {each.help}", f"# {each.key} = {each.example}"]
        elif row.key:
            default = row.default or ""
            written = f"{default:g}" if isinstance(default, float) else str(default)
            lines += [f"# {row.help}", f"{row.key} = {written}".rstrip()]
        elif row.example:
            lines += [f"# {row.help}", f"# {row.example}"]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(example_file(), end="")
