"""Codes of a gallery, the index over them, search, duplicates, the search server."""
