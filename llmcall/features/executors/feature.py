"""What running a map on executors adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(map_options={"executor": "features.executors.task_sender:TaskSender"})
