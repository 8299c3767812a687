"""The version of this package, below all rooms: manifests record it."""

__version__ = "0.1.0"
