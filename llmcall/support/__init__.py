"""Notices, display, processes, interrupts, secrets: code that needs no other folder."""
