"""A search page and a JSON API on Ray Serve, by two processes, until Ctrl-C.

python examples/search_service.py INDEX RUN [PORT]

http://127.0.0.1:8000 is the page then; docs/search.md has the API.
"""

import sys

import schn_ray


def main(index: str, run: str, port: int) -> None:
    """Serve on this machine only; host="0.0.0.0" would let others in, see docs/security.md."""
    schn_ray.serve(index, run, port=port, settings={"replicas": 2})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 8000)
