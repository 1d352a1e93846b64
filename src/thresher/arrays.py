"""What arrays hold, by the name that every room gives it; shapes are said where they are used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
"""Numbers of classes."""
Indices = npt.NDArray[np.int64]
"""Positions of rows, from 0."""
