"""Named search spaces, one YAML file each."""
