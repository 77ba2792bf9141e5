"""The setting of completion windows."""

from __future__ import annotations

from ...config.setting import Setting
from ...config.values import one_of

HOURS = {"2h": 2.0, "8h": 8.0}
WINDOW = Setting(
    one_of("none", *HOURS),
    "none",
    comment="How long answers may take, for a lower price: 2h, 8h or none (they come at once)",
)
