"""Retrieval metrics on Hamming distances, exact under ties."""
