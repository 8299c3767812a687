"""Heads: features [N, d] -> h [N, K]. A code is sign(h), with sign(0) = +1."""
