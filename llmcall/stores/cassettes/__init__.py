"""Recordings of blocks of code: one file each, made for review and for git."""
