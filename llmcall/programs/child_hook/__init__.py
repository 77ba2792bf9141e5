"""What Python child processes of ``llmcall run`` load when they start."""
