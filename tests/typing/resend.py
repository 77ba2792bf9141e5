"""The types that a user's calls have."""

from typing import assert_type

import llmcall

assert_type(llmcall.resend("a.jsonl", dry_run=True), llmcall.types.Plan)
