"""Programs that do not know llmcall: their calls are recorded and replayed."""
