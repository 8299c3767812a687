"""Images and labels in: sources, shards, the training store and its splits."""
