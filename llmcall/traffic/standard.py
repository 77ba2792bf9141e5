"""The listeners that every process has, in the order in which they hear of a call."""

from __future__ import annotations

from ..scopes import ArmRecords, RepeatedAnswers
from ..support.listeners import listeners
from .reports import FailureReport
from .usage import UsageCount
from .warnings import AnswerWarnings

listeners += [UsageCount(), FailureReport(), AnswerWarnings(), RepeatedAnswers(), ArmRecords()]
