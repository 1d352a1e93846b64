"""``python -m thresher``, and the command ``thresher``."""

from __future__ import annotations

from thresher.start import start


def main() -> None:
    """Run the command."""
    start("thresher.cli")


if __name__ == "__main__":
    main()
