"""Traffic: limits, budgets, usage."""
