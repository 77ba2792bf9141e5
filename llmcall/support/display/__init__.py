"""Texts, tables and notebook cells for people to read."""
