"""Near-duplicates: groups within a gallery, and leaks between two.

- ``bands``: the multi-index. Codes are cut into bands; near codes have a band in which they are
  nearer still. A cost model chooses how many bands, and how far apart they may be in each.
- ``components``: sets of connected codes, in arrays.
- ``connected``: the connected components of the graph of neighbours, by bands.
- ``nearest``: the nearest neighbour within a radius in another gallery, by bands.
- ``evidence``: whether candidates are copies, by bytes, ``thumbnails`` or features.
- ``verify``: groups of candidates that are; ``planted``: how many copies would be recovered.
- ``groups``: from an index or codes to the file of groups; ``leaks``: the file of two galleries.
- ``best``: which image of a group is worth keeping, and the lists of the others.
- ``partitions``: the bands as a shuffle, for galleries that do not fit one machine.
"""
