"""Notices, display, processes, interrupts, secrets: what no other folder is needed for."""
