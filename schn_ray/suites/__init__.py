"""Suites: many methods on the same data, split, backbone and budget, measured for one table."""
