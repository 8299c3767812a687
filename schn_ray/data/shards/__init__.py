"""Work on a source in shards: the job, its parts and receipts, what is left to do, quarantine."""
