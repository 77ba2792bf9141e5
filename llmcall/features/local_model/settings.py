"""The setting of a model in this process."""

from __future__ import annotations

from ...config.setting import Setting
from ...config.values import integer

CONTEXT_WINDOW = Setting(
    integer(0),
    4096,
    comment="Context window of a local model (prompt and answer together), in tokens; "
    "0: the length it was trained for",
)
