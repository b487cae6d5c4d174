"""The metadata of one series of a PYP project: its pickle, or texts. See ``pyp_project.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.boxes import Boxes3d, read_boxes3d
from ..io.imod import read_angles, read_xf
from ..io.mrc import MrcStack, open_stack
from ..io.pyp_dataset import PypSeries
from ..io.pyp_geometry import model_to_positions
from ..io.pyp_pickle import read_pkl
from ..io.pyp_series import check_numbers
from ..io.text import number, read_lines

TEXT_FOLDERS = ("ali", "ctf", "mrc", "raw", "")
IMAGE_ENDINGS = (".mrc", ".st", ".mrcs")
CTF = ("tilt_angle", "df1", "df2", "ast")
LARGEST_SIZE = 1_000_000  # pixels to a side of a tomogram


class SeriesFiles:
    """Looks for the metadata of one series: in its pickle first, as PYP does, then in texts."""

    def __init__(self, folder: Path, name: str, pixel: float, binning: float) -> None:
        self.folder, self.name, self.pixel, self.binning = folder, name, pixel, binning
        self.notes: List[str] = []  # what was assumed
        pkl = folder / "pkl" / f"{name}.pkl"
        self.tables: Dict[str, Any] = read_pkl(pkl) if pkl.exists() else {}
        self.where = f"{folder}: series {name}"

    def read(self) -> PypSeries:
        images = self.images()
        count = images.n
        specimen, binning = self._specimen(images)
        linear, offset = self._alignment()
        tilt = self._numbers("tlt", ("tilt_angle",))
        tilt = read_angles(self._need(".tlt")) if tilt is None else tilt[:, 0]
        for what, values in ((".xf", linear), (".tlt", tilt)):
            if len(values) != count:
                raise InputError(f"{self.where}: {count} images, but {len(values)} lines in its {what}; they must be of one "
                                 "alignment")
        check_numbers(tilt, f"{self.where}: tilt angles")
        enabled = np.ones(count, bool)
        excluded = self._numbers("exclude", ("exclude_view",), (-1,))  # points of a model: x, y and, as z, the image from 0
        if excluded is not None:
            rows = np.rint(excluded[:, 0]).astype(np.int64)
            enabled[rows[(rows >= 0) & (rows < count)]] = False
        listed = self._boxes(specimen, binning)
        return PypSeries(self.name, images.path, (images.nx, images.ny), specimen, linear, offset, tilt, self._order(count),
                         self._ctf(count), enabled, listed.position, listed.index, listed.index[~listed.keep])

    def _find(self, ending: str, *folders: str) -> Optional[Path]:
        paths = [self.folder / folder / f"{self.name}{ending}" for folder in folders or TEXT_FOLDERS]
        return next((path for path in paths if path.exists()), None)

    def _need(self, ending: str) -> Path:
        path = self._find(ending)
        if path is None:
            raise InputError(f"{self.where}: no pkl/{self.name}.pkl with it and no {self.name}{ending} in "
                             f"{', '.join(TEXT_FOLDERS[:-1])}; put it there")
        return path

    def _numbers(self, key: str, names: Sequence[str], places: Sequence[int] = ()) -> Optional[NDArray[np.float64]]:
        """Columns of a table of the pickle ``(rows, len(names))``: by name or, where it has no names, by place.

        Places are from the first on where not given. None where there is no such table, or nothing in it. Raises InputError.
        """
        table: Any = self.tables.get(key)
        parts = list(table.values()) if isinstance(table, dict) else [table]
        if table is None or not any(np.size(part) for part in parts):
            return None
        try:
            if isinstance(table, dict):
                named = len(table) > 1 and not all(name.isdecimal() for name in table)
                if named:
                    parts, places = [table[name] for name in names], ()
                whole = np.stack([np.asarray(part, float) for part in parts], axis=-1)
            else:
                whole = np.asarray(table, dtype=float)
                whole = whole.reshape(len(whole), -1)
            values: NDArray[np.float64] = whole[:, list(places or range(len(names)))]
        except (TypeError, ValueError, KeyError, IndexError):
            raise InputError(f"{self.where}: table {key!r} of its pickle has not the columns {', '.join(names)} of numbers; "
                             "write it again") from None
        check_numbers(values, f"{self.where}: table {key!r} of its pickle")
        return values

    def images(self) -> MrcStack:
        """The tilt series. Raises InputError where there is none."""
        for ending in IMAGE_ENDINGS:
            path = self._find(ending, "mrc", "", "raw")
            if path is not None:
                return open_stack(path)
        raise InputError(f"{self.where}: no tilt series mrc/{self.name}.mrc; put it there")

    def _specimen(self, images: MrcStack) -> Tuple[Tuple[int, int, int], float]:
        """(unbinned pixels, the tomogram's binning: 0 where nothing says it).

        The tomogram's own pixel says its binning where the configuration does not.
        """
        table = self._numbers("tomo", ("x", "y", "z"))
        text, binning = self._find(".size"), self.binning
        if table is None and text is not None:  # unbinned, as `cspr convert` writes it
            return _checked_size(read_angles(text).tolist(), str(text)), binning
        if table is None:
            path = self._find(".rec", "mrc", "rec", "")
            if path is None:
                raise InputError(f"{self.where}: the tomogram's size is not known; put mrc/{self.name}.rec there")
            tomogram = open_stack(path)
            size = _checked_size((tomogram.nx, tomogram.ny, tomogram.n), str(path))
            if not binning and tomogram.pixel not in (0.0, 1.0):
                binning = tomogram.pixel / self.pixel
        else:
            size = _checked_size(table[0].tolist(), f"{self.where}: table 'tomo' of its pickle")
        if not binning:
            binning = max(images.nx, images.ny) / max(size[:2])
            self.notes.append(f"series {self.name}: the tomogram's binning is taken as {round(binning)} from its width; "
                              "tomo_rec_binning says it otherwise")
        if not 0 < binning <= LARGEST_SIZE:
            raise InputError(f"{self.where}: the tomogram is binned {binning:g} times; give tomo_rec_binning")
        whole = round(binning) if abs(binning - round(binning)) < 0.02 * binning else binning
        unbinned = _checked_size([value * whole for value in size], f"{self.where}: unbinned {binning:g} times")
        return unbinned, float(whole)

    def _alignment(self) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """F ``(n, 2, 2)`` and d ``(n, 2)`` of the .xf."""
        table = self._numbers("ali", ("m00", "m01", "m02", "m03", "dx", "dy"))
        if table is None:
            linear, offset = read_xf(self._need(".xf"))
        else:
            linear, offset = table[:, :4].reshape(-1, 2, 2), table[:, 4:]
        check_numbers(linear, f"{self.where}: its alignment (.xf)")
        check_numbers(offset, f"{self.where}: its alignment (.xf)")
        flat = np.flatnonzero(~(np.linalg.det(linear) > 1e-6))
        if len(flat):
            raise InputError(f"{self.where}: the matrix of image {flat[0]} is singular or mirrored; check its alignment (.xf)")
        return linear, offset

    def _order(self, count: int) -> NDArray[np.int64]:
        values = self._numbers("order", ("order",))
        path = self._find(".order")
        if values is None and path is not None:
            values = read_angles(path)[:, None]
        if values is None:
            self.notes.append(f"series {self.name}: no order of acquisition (.order); the images' is taken")
            return np.arange(count)
        check_numbers(values, f"{self.where}: its .order")
        order = np.rint(values[:, 0]).astype(np.int64)
        if len(order) != count or len(np.unique(order)) != count or order.min() < 0:
            raise InputError(f"{self.where}: its .order is not {count} different whole numbers from 0; mend it")
        return order

    def _ctf(self, count: int) -> NDArray[np.float64]:
        values = self._numbers("ctf", CTF[1:], (1, 2, 3))
        if values is None:
            values = _read_ctf(self._need(".ctf"))
        if len(values) != count:
            raise InputError(f"{self.where}: its CTF has {len(values)} rows, want {count} of {', '.join(CTF)}")
        return values

    def _boxes(self, specimen: Tuple[int, int, int], binning: float) -> Boxes3d:
        """Picked positions: isolated particles of the pickle, or what _boxes3d.txt lists."""
        boxes = self._numbers("box", ("x", "y", "z"))
        if boxes is not None and self._numbers("vir", ("x", "y", "z")) is None:
            if not binning:
                raise InputError(f"{self.where}: boxes were picked in a binned tomogram, by how much is not known; give "
                                 "tomo_rec_binning")
            position = model_to_positions(boxes, specimen, binning)
            return Boxes3d(np.arange(len(boxes)), position, np.zeros(len(boxes)), np.ones(len(boxes), bool))
        path = self._find("_boxes3d.txt", "csp")
        if path is None:
            return Boxes3d(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
        listed = read_boxes3d(path)
        check_numbers(listed.position, f"{path}: positions")
        return listed


def _checked_size(values: Sequence[float], where: str) -> Tuple[int, int, int]:
    """A tomogram's size in whole pixels. Raises InputError for what is none."""
    if len(values) != 3 or not all(1 <= value <= LARGEST_SIZE for value in values):
        found = " ".join(f"{value:g}" for value in values[:4])
        raise InputError(f"{where}: the tomogram's size is {found}; want x, y and z of 1 to {LARGEST_SIZE:,} pixels")
    x, y, z = (int(round(value)) for value in values)
    return x, y, z


def _read_ctf(path: Path) -> NDArray[np.float64]:
    """DF1, DF2, ANGAST of each line of a .ctf. Raises InputError."""
    rows = []
    for line, text in enumerate(read_lines(path), 1):
        words = text.split("#")[0].split()
        if not words:
            continue
        if len(words) < len(CTF):
            raise InputError(f"{path}: line {line}: {len(words)} numbers, want {', '.join(CTF)}")
        rows.append([number(word, str(path), line, name) for word, name in zip(words[1:4], CTF[1:])])
    values = np.array(rows).reshape(-1, 3)
    check_numbers(values, str(path))
    return values
