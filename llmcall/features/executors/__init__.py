"""The tasks of a map in other processes: those of a pool, and of a cluster's other machines."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(map_options={"executor": "features.executors.task_sender:TaskSender"})
