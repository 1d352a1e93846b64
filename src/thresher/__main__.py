"""``python -m thresher``, and the command ``thresher``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; Ctrl-C while its libraries are imported ends it as later, without a traceback."""
    try:
        from thresher.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
