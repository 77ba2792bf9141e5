"""Texts, tables and notebook cells as people see them."""
