"""Presets of ``train``, as YAML files."""
