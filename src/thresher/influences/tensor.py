"""The influence tensor: an ``xarray.Dataset`` in memory, the same as Zarr on disk.

One float32 variable an influence function, dims ("module", "query", "train"); coordinates say what each module is
(block, layer, projection, factor, group, kind), which queries the model gets right, and in an audit which row of the
training file each is, whether it was a canary, with a wrong label of ours, and which rows are the reference that stands
for all, where these are not all. NaN where a function is not defined. Larger is helpful, lower is detrimental.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from thresher.arrays import Flags, Indices
from thresher.checksums import forget, record
from thresher.files import files_in, remove, told_of_disk
from thresher.influences.checked_store import checked_folder
from thresher.influences.driver import Matrices, Met, Part, Work, drive
from thresher.influences.registry import INFLUENCE, InfluenceFunction
from thresher.model.names import ModuleName
from thresher.progress import Progress

DIMS = ("module", "query", "train")
SIGN = "larger = helpful, lower = detrimental"


def make_frame(
    modules: Sequence[ModuleName],
    correct: Flags,
    train: int,
    *,
    reference: Indices | None = None,
    **of_rows: Flags | Indices,
) -> xr.Dataset:
    """The tensor's coordinates without its values.

    ``correct`` [Q] says which queries the model gets right; ``of_rows`` are more coordinates of the rows, [train] each.
    Where there are more than the ``reference`` rows, a coordinate marks these.
    """
    if reference is not None and len(reference) < train:
        of_rows = {**of_rows, "reference": np.isin(np.arange(train), reference)}
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


def reference_rows(tensor: xr.Dataset | xr.DataArray) -> Indices:
    """The places of the rows that stand for all others: all of them, unless the tensor says which."""
    if "reference" not in tensor.coords:
        return np.arange(tensor.sizes["train"])
    return np.flatnonzero(tensor["reference"].values)


def tensor_of(work: Work, progress: Progress) -> xr.Dataset:
    """The influence of every training row on every query, in memory."""
    sink = _Memory(work)
    drive(work, sink, progress).close()
    return fill_frame(sink.frame, sink.values, work.functions)


class _Memory:
    """The tensor in memory as a sink."""

    def __init__(self, work: Work) -> None:
        self.frame, self._work = xr.Dataset(), work
        shape = (len(work.plan.modules), len(work.query), len(work.train))
        self.values = {method: np.full(shape, np.nan, np.float32) for method in work.functions}

    def open(self, correct: Flags, parts: Sequence[Part]) -> None:
        """Take down the coordinates."""
        self.frame = make_frame(self._work.plan.modules, correct, len(self._work.train), reference=parts[0].rows)

    def add(self, part: Part, number: int, values: Matrices) -> None:
        """Put the rows in their places."""
        for method, matrix in values.items():
            self.values[method][number][:, part.rows] = matrix

    def close(self, part: Part) -> dict[str, Tensor]:
        """Keep nothing beside the tensor."""
        return {}


class TensorFile:
    """The tensor on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, frame: xr.Dataset, methods: Sequence[str]) -> None:
        """Lay out the file anew; values are NaN until they are written."""
        remove(self.path)
        with told_of_disk(self.path):
            self._lay_out(frame, methods)
            record(files_in(self.path))

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

    def write(self, number: int, values: Matrices) -> None:
        """Write one module's matrices [Q, N] by method."""
        import zarr

        with told_of_disk(self.path):
            group = zarr.open_group(str(self.path), mode="r+")
            for method, matrix in values.items():
                chunks = self.path / method / "c" / str(number)
                forget(chunks)  # first, so that a kill leaves nothing that looks damaged
                group[method][number] = matrix  # pyright: ignore[reportIndexIssue, reportArgumentType]
                record(files_in(chunks))

    def open(self) -> xr.Dataset:
        """The tensor, read from disk as it is used; what is not as it was written raises :class:`DamagedError` then."""
        # As it is written; the second version of the format may name pickle as a codec.
        return xr.open_zarr(checked_folder(self.path), chunks=None, zarr_format=3)


class FileSink:
    """A tensor file as a sink: modules of the reference rows as they come, and of all others in the end."""

    def __init__(self, file: TensorFile, work: Work, of_rows: Mapping[str, Flags | Indices]) -> None:
        self._file, self._work, self._of_rows = file, work, of_rows
        self._kept: dict[str, Tensor] = {}

    def open(self, correct: Flags, parts: Sequence[Part]) -> None:
        """Lay out the file."""
        work = self._work
        frame = make_frame(work.plan.modules, correct, len(work.train), reference=parts[0].rows, **self._of_rows)
        self._file.create(frame, list(work.functions))

    def add(self, part: Part, number: int, values: Matrices) -> None:
        """Write the reference rows' columns; keep the others' until :meth:`finish`."""
        if part.number == 0:
            self._file.write(number, {name: self._placed(part, matrix) for name, matrix in values.items()})
        else:
            self._kept |= {_line(name, number): torch.from_numpy(matrix.T.copy()) for name, matrix in values.items()}

    def close(self, part: Part) -> dict[str, Tensor]:
        """Give a part's columns, but for those of the reference rows."""
        kept, self._kept = self._kept, {}
        return kept

    def finish(self, met: Met) -> None:
        """Write the columns of all rows that are no reference rows."""
        if len(met.parts.rows) == 1:
            return
        tensor = self._file.open()
        for number, module in enumerate(self._work.plan.modules):
            functions = [name for name, one in self._work.functions.items() if one.defined_on(module)]
            matrices = {name: np.asarray(tensor[name][number].values) for name in functions}
            for name, matrix in matrices.items():
                if not np.isnan(matrix).all():
                    for rows, part in met.parts.blocks(_line(name, number), start=1):
                        assert isinstance(part, Tensor)
                        matrix[:, rows] = part.numpy().T
            self._file.write(number, matrices)

    def _placed(self, part: Part, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        placed = np.full((len(matrix), len(self._work.train)), np.nan, np.float32)
        placed[:, part.rows] = matrix
        return placed


def _line(method: str, number: int) -> str:
    return f"{method} {number}"


def _about(function: InfluenceFunction) -> dict[str, str]:
    return {"formula": function.formula, "source": function.source, "sign": SIGN}


def _column(values: npt.NDArray) -> npt.NDArray:
    # Text of any length: the fixed-length text of numpy has no Zarr v3 specification.
    return values.astype(object) if values.dtype.kind == "U" else values
