"""The types of plans."""

from typing import assert_type

import llmcall

call = llmcall.LLMCall(user="Hello, {{ name }}!")
assert_type(call.map([{"name": "Lisa"}], dry_run=True), llmcall.types.Plan)
assert_type(call.table([{"name": "Lisa"}], dry_run=True), llmcall.types.Plan)
