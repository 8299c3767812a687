"""The search for good settings: spaces, studies, trials, confirmation, results."""
