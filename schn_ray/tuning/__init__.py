"""Searches for settings: spaces, studies, trials, their results."""
