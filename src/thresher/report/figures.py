"""What every figure needs: matplotlib, and a picture where a notebook shows it."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING

from thresher.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_matplotlib(what: str) -> None:
    """Raise :class:`ConfigError`, before anything is computed, where ``what`` needs matplotlib and it is missing."""
    if find_spec("matplotlib") is None:
        raise ConfigError(f"{what}: this needs matplotlib; pip install 'thresher[plot]'.")


def for_notebooks(figure: Figure) -> Figure:
    """The figure, which was made without pyplot, with a picture for notebooks that have not imported that."""

    def png() -> bytes:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110)
        return picture.getvalue()

    figure._repr_png_ = png  # pyright: ignore[reportAttributeAccessIssue]
    return figure
