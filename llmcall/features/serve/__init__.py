"""The server of `llmcall serve`, for programs that the user starts, in any language."""
