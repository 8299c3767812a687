"""Search spaces of ``tune``, as YAML files."""
