"""Training runs: settings, batches, state and checkpoints, the loop, and files of a run."""
