"""The metadata of one series of a PYP project: its pickle, or texts. See ``pyp_project.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io.boxes import read_boxes3d
from ..io.imod import read_angles, read_xf
from ..io.mrc import MrcStack, open_stack
from ..io.pyp_dataset import PypSeries
from ..io.pyp_geometry import model_to_positions
from ..io.pyp_pickle import read_pkl

TEXT_FOLDERS = ("ali", "ctf", "mrc", "raw", "")
IMAGE_ENDINGS = (".mrc", ".st", ".mrcs")


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
        specimen = self._specimen(images)
        alignment = self._numbers("ali", ("m00", "m01", "m02", "m03", "dx", "dy"))
        if alignment is None:
            linear, offset = read_xf(self._need(".xf"))
        else:
            linear, offset = alignment[:, :4].reshape(-1, 2, 2), alignment[:, 4:6]
        tilt = self._numbers("tlt", ("tlt",))
        tilt = read_angles(self._need(".tlt")) if tilt is None else tilt[:, 0]
        for what, values in ((".xf", linear), (".tlt", tilt)):
            if len(values) != count:
                raise InputError(f"{self.where}: {count} images, but {len(values)} lines in its {what}; they must be of one "
                                 "alignment")
        enabled = np.ones(count, bool)
        excluded = self._numbers("exclude", ("exclude",))
        if excluded is not None:
            rows = excluded[:, 0].astype(int)
            enabled[rows[(rows >= 0) & (rows < count)]] = False
        return PypSeries(self.name, images.path, (images.nx, images.ny), specimen, linear, offset, tilt, self._order(count),
                         self._ctf(count), enabled, self._positions(specimen))

    def _find(self, ending: str, *folders: str) -> Optional[Path]:
        paths = [self.folder / folder / f"{self.name}{ending}" for folder in folders or TEXT_FOLDERS]
        return next((path for path in paths if path.exists()), None)

    def _need(self, ending: str) -> Path:
        path = self._find(ending)
        if path is None:
            raise InputError(f"{self.where}: no pkl/{self.name}.pkl with it and no {self.name}{ending} in "
                             f"{', '.join(TEXT_FOLDERS[:-1])}; put it there")
        return path

    def _numbers(self, key: str, columns: Tuple[str, ...]) -> Optional[NDArray[np.float64]]:
        """A table of the pickle ``(rows, columns)``, None where it has none."""
        table = self.tables.get(key)
        if table is None or (isinstance(table, (list, dict)) and not table):
            return None
        try:
            if isinstance(table, dict):
                known = [name for name in columns if name in table]
                names = known if len(known) == len(columns) else list(table)
                values = np.stack([np.asarray(table[name], float) for name in names], axis=-1)
            else:
                values = np.asarray(table, dtype=float)
                values = values.reshape(len(values), -1)
        except (TypeError, ValueError):
            values = np.zeros((0, 0))
        if values.ndim != 2 or values.shape[1] < len(columns) or not np.isfinite(values).all():
            raise InputError(f"{self.where}: table {key!r} of its pickle is not {len(columns)} columns of numbers; write it "
                             "again")
        return values

    def images(self) -> MrcStack:
        """The tilt series. Raises InputError where there is none."""
        for ending in IMAGE_ENDINGS:
            path = self._find(ending, "mrc", "", "raw")
            if path is not None:
                return open_stack(path)
        raise InputError(f"{self.where}: no tilt series mrc/{self.name}.mrc; put it there")

    def _specimen(self, images: MrcStack) -> Tuple[int, int, int]:
        """Unbinned pixels. The tomogram's own pixel says its binning where the configuration does not."""
        size = self._numbers("tomo", ("x", "y", "z"))
        binning = self.binning
        text = self._find(".size")
        if size is None and text is not None:  # unbinned, as `cspr convert` writes it
            values = read_angles(text)
            if len(values) == 3 and min(values) >= 1:
                return int(values[0]), int(values[1]), int(values[2])
            raise InputError(f"{text}: want the tomogram's x, y and z in unbinned pixels, one a line")
        if size is None:
            path = self._find(".rec", "mrc", "rec", "")
            if path is None:
                raise InputError(f"{self.where}: the tomogram's size is not known; put mrc/{self.name}.rec there")
            tomogram = open_stack(path)
            size = np.array([[tomogram.nx, tomogram.ny, tomogram.n]], dtype=float)
            if not binning and tomogram.pixel not in (0.0, 1.0):
                binning = tomogram.pixel / self.pixel
        if not binning:
            binning = max(images.nx, images.ny) / max(size[0, 0], size[0, 1])
            self.notes.append(f"series {self.name}: the tomogram's binning is taken as {round(binning)} from its width; "
                              "tomo_rec_binning says it otherwise")
        whole = round(binning) if abs(binning - round(binning)) < 0.02 * binning else binning
        x, y, z = (int(round(value * whole)) for value in size[0, :3])
        return x, y, z

    def _order(self, count: int) -> NDArray[np.int64]:
        values = self._numbers("order", ("order",))
        path = self._find(".order")
        if values is None and path is not None:
            values = read_angles(path)[:, None]
        if values is None:
            self.notes.append(f"series {self.name}: no order of acquisition (.order); the images' is taken")
            return np.arange(count)
        order = np.rint(values[:, 0]).astype(np.int64)
        if len(order) != count or len(np.unique(order)) != count or order.min() < 0:
            raise InputError(f"{self.where}: its .order is not {count} different whole numbers from 0; mend it")
        return order

    def _ctf(self, count: int) -> NDArray[np.float64]:
        values = self._numbers("ctf", ("tilt_angle", "df1", "df2", "ast"))
        if values is None:
            path = self._need(".ctf")
            try:
                values = np.loadtxt(path, ndmin=2)
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: {' '.join(str(error).split())}; want lines of tilt angle, DF1, DF2, "
                                 "ANGAST") from None
        if values.shape[0] != count or values.shape[1] < 4 or not np.isfinite(values).all():
            raise InputError(f"{self.where}: its CTF is {values.shape[0]} rows of {values.shape[1]} numbers, want {count} of "
                             "tilt angle, DF1, DF2, ANGAST")
        return values[:, 1:4].copy()

    def _positions(self, specimen: Tuple[int, int, int]) -> NDArray[np.float64]:
        boxes = self._numbers("box", ("x", "y", "z"))
        if boxes is not None and len(boxes):
            tomogram = self._numbers("tomo", ("x", "y", "z"))
            binning = self.binning or (specimen[2] / tomogram[0, 2] if tomogram is not None else 1.0)
            return model_to_positions(boxes[:, :3], specimen, binning)
        path = self._find("_boxes3d.txt", "csp")
        if path is None:
            return np.zeros((0, 3))
        listed = read_boxes3d(path)
        positions = np.zeros((int(listed.index.max(initial=-1)) + 1, 3))
        positions[listed.index] = listed.position
        return positions
