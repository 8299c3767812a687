"""What users have: folders, lists, Parquet, Arrow, tar files and published data sets."""
