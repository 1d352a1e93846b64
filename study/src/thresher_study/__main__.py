"""``python -m thresher_study``, and the command ``thresher-study``."""

from __future__ import annotations

from thresher.start import start


def main() -> None:
    """Run the command."""
    start("thresher_study.cli")


if __name__ == "__main__":
    main()
