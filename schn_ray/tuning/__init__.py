"""Search for settings: what may vary, the trials on disk, and what came out. It knows no Ray."""
