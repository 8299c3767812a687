"""Work on a source in shards: rows, receipts, what is left to do, what is quarantined."""
