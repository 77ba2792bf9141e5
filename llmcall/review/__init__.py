"""Recordings shown to a reviewer: as text, as a page, compared."""
