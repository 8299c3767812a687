"""How good codes are: exact figures under ties, controls, comparisons."""
