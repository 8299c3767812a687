"""Codes in the files, tables and databases of other search engines.

gallery: codes or an index as batches of rows, with labels of a store.
engine: what an engine is: how it is written, the lines that search it, its limits.
convert: the verb; ``ENGINES`` is the list of them.

Each other file has an engine, or two of the same kind. The packages of an engine are imported by
its function that writes. docs/interop.md has every recipe.
"""
