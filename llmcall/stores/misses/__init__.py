"""A request that is not recorded: the nearest record, how it differs, why, and how to record it."""
