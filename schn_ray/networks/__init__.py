"""The networks of SCHN: layers only; ``hasher.py`` wires them."""
