"""The types that a user's calls have."""

import llmcall

with llmcall.override({("Ben", 2): "no", ("Ann", 1): {"content": "yes"}}):
    pass
llmcall.override({"Ben": "no"})  # type: ignore[dict-item]
