"""Training runs: settings, batches, the loop, checkpoints and what a run writes."""
