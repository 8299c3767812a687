"""``python -m schn_ray`` is the command ``schn-ray``."""

from schn_ray.cli import main

main()
