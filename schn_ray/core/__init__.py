"""What every room stands on: errors, settings, directories, storage, workers, bits."""
