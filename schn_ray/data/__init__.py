"""From images and labels to a training store: sources, shards, splits and the store itself."""
