"""The influence tensor: an ``xarray.Dataset`` in memory, the same as Zarr on disk.

One float32 variable an influence function, dims ("module", "query", "train"); coordinates say what each module is
(block, layer, projection, factor, group, kind), which queries the model gets right, and in an audit which row of the
training file each is and whether it was a canary, with a wrong label of ours. NaN where a function is not defined.
Larger is helpful, lower is detrimental.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from thresher.checksums import is_damaged, record
from thresher.files import files_in, read_json, remove, told_of_disk, write_json
from thresher.influences.checked_store import checked_folder
from thresher.influences.registry import INFLUENCE, InfluenceFunction
from thresher.model.names import ModuleName

DIMS = ("module", "query", "train")
SIGN = "larger = helpful, lower = detrimental"


def make_frame(
    modules: Sequence[ModuleName],
    correct: npt.NDArray[np.bool_],
    train: int,
    **of_rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64],
) -> xr.Dataset:
    """The tensor's coordinates without its values.

    ``correct`` [Q] says which queries the model gets right; ``of_rows`` are more coordinates of the rows, [train] each.
    """
    fields = ("block", "layer", "projection", "factor", "group", "size", "kind")
    texts = {field: np.array([getattr(module, field) for module in modules]) for field in fields}
    coordinates = {field: ("module", _column(values)) for field, values in texts.items()}
    return xr.Dataset(
        coords={
            "module": ("module", _column(np.array([module.name for module in modules]))),
            "query": np.arange(len(correct)),
            "train": np.arange(train),
            "correct": ("query", correct),
            **{name: ("train", values) for name, values in of_rows.items()},
            **coordinates,
        },
        attrs={"sign": SIGN},
    )


def read_modules(tensor: xr.Dataset) -> list[ModuleName]:
    """The tensor's modules, in its order: what :func:`make_frame` wrote."""
    fields = ["module", "block", "layer", "projection", "factor", "group", "size"]
    fields += ["kind"] if "kind" in tensor.coords else []  # before there were other kinds, all were weights
    return [ModuleName(*values) for values in zip(*(tensor[field].values.tolist() for field in fields), strict=True)]


def fill_frame(
    frame: xr.Dataset,
    values: Mapping[str, npt.NDArray[np.float32]],
    functions: Mapping[str, InfluenceFunction] = INFLUENCE,
) -> xr.Dataset:
    """The coordinates with values [module, query, train] by method."""
    variables = {name: (DIMS, value, _about(functions[name])) for name, value in values.items()}
    return frame.assign({name: xr.Variable(*variable) for name, variable in variables.items()})


class TensorFile:
    """The tensor on disk, written a module at a time; a killed run goes on after the last finished module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._progress = path.with_name(f"{path.stem}.progress.json")

    def create(self, frame: xr.Dataset, methods: Sequence[str]) -> None:
        """Lay out the file, unless an earlier run did; values are NaN until they are written."""
        if self._progress.exists():
            return
        with told_of_disk(self.path):
            self._lay_out(frame, methods)
            record(files_in(self.path))
        self._finish(0, frame.sizes[DIMS[0]])

    def _lay_out(self, frame: xr.Dataset, methods: Sequence[str]) -> None:
        import zarr

        frame.to_zarr(self.path, mode="w", consolidated=False, zarr_format=3)
        group = zarr.open_group(str(self.path), mode="r+")
        shape = tuple(frame.sizes[dim] for dim in DIMS)
        for method in methods:
            array = group.create_array(
                method,
                shape=shape,
                chunks=(1, *shape[1:]),
                dtype="float32",
                fill_value=float("nan"),
                dimension_names=DIMS,
            )
            array.attrs.update(_about(INFLUENCE[method]))
        with warnings.catch_warnings():  # zarr warns that the third version of its format does not have it yet
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
            zarr.consolidate_metadata(str(self.path))

    @property
    def finished_modules(self) -> int:
        """How many modules, from the first, are on disk."""
        return int(read_json(self._progress, {"finished": 0})["finished"])

    @property
    def complete(self) -> bool:
        """Whether every module is on disk."""
        progress = read_json(self._progress)
        return progress is not None and progress["finished"] == progress["modules"]

    def write(self, number: int, values: Mapping[str, npt.NDArray[np.float32]], modules: int) -> None:
        """Write one module's matrices [Q, N] by method."""
        import zarr

        with told_of_disk(self.path):
            group = zarr.open_group(str(self.path), mode="r+")
            for method, matrix in values.items():
                group[method][number] = matrix  # pyright: ignore[reportIndexIssue, reportArgumentType]
            record(file for method in values for file in files_in(self.path / method / "c" / str(number)))
        self._finish(number + 1, modules)

    def remove(self) -> None:
        """Take the file off the disk."""
        remove(self._progress)
        remove(self.path)

    def open(self) -> xr.Dataset:
        """The tensor, read from disk as it is used; what is not as it was written raises :class:`DamagedError` then."""
        return xr.open_zarr(checked_folder(self.path), chunks=None)

    @property
    def laid_out(self) -> bool:
        """Whether the file has been laid out, and says how many modules are there."""
        return self._progress.exists() and not is_damaged(self._progress)

    def go_back(self, number: int) -> None:
        """Count the modules from ``number`` on as not written."""
        progress = read_json(self._progress)
        if progress["finished"] > number:
            self._finish(number, progress["modules"])

    def _finish(self, finished: int, modules: int) -> None:
        write_json(self._progress, {"finished": finished, "modules": modules})


def _about(function: InfluenceFunction) -> dict[str, str]:
    return {"formula": function.formula, "source": function.source, "sign": SIGN}


def _column(values: npt.NDArray) -> npt.NDArray:
    # Text of any length: the fixed-length text of numpy has no Zarr v3 specification.
    return values.astype(object) if values.dtype.kind == "U" else values
