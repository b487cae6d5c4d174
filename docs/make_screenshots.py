"""Make the pictures of Scipion's windows for the documentation, on an X server without a screen.

    python docs/make_screenshots.py [WORK]

Needs Scipion in this Python's environment, and Xvfb. In a project of its own the sample is made, and refined from the form as a
user does it; WORK (a temporary folder if not given) gets the project and a picture of every window, docs/images those of the
guide.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
IMAGES = Path(__file__).resolve().parent / "images"
SAMPLE = {"nSeries": 2, "nParticles": 60, "nTilts": 41, "boxSize": 48, "pixelSize": 5.0}
SCREEN = "1600x1000x24"
GAP, BACK, EDGE = 16, (255, 255, 255), (200, 206, 212)
# picture of the guide: rows of windows
PICTURES = {
    "scipion_project": [["project"]],
    "scipion_form": [["refine_form_0", "refine_form_1"]],
    "scipion_wizards": [["ProtPypCsprRefine.symmetry"], ["ProtPypCsprRefine.mapBox"]],
    "scipion_viewer": [["viewer_form", "showFsc"], ["showCourse", "showWeights"]],
    "scipion_particles": [["showMap", "showDirections"], ["showGeometry", "showShifts"]],
    "scipion_filter": [["ProtPypCsprFilter.byScore"]],
}


def environment(folder: Path) -> None:
    """What the host reads when it is imported."""
    sys.path.insert(0, str(ROOT))
    from pyp_cspr.tests.protocols.home import host_variables, plugin_path

    path = plugin_path(folder)
    sys.path[:0] = path.split(os.pathsep)
    os.environ.update(host_variables(folder), PYTHONPATH=path, BROWSER="true")


def start_server() -> Any:
    """An X server on a free display, which becomes this process's."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", SCREEN, "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader) as stream:
        os.environ["DISPLAY"] = f":{stream.readline().strip()}"
    return server


def use_windows(folder: Path) -> Any:
    """A user's session; returns its errors."""
    from pyp_cspr.tests.viewers import run_gui
    from pyp_cspr.tests.viewers.gui import Driver

    class Tour(run_gui.Session):
        """The session of the test with usual values."""

        name = "hexon"
        numbers = (("iterations", "3"),)
        chosen = {"symmetry": ("symmetry", "C3"), "mapBox": ("box", 48)}

    session = Tour(folder, SAMPLE)
    driver = Driver(session.root, session.steps(), 600.0)
    session.window.show()
    return driver.errors


def framed(path: Path) -> Image.Image:
    """A window with a line around it, as a window manager would draw one."""
    return ImageOps.expand(Image.open(path).convert("RGB"), 1, EDGE)


def compose(folder: Path, name: str) -> None:
    """A picture of the guide."""
    rows = [[framed(folder / f"{one}.png") for one in row] for row in PICTURES[name]]
    width = max(sum(image.width for image in row) + GAP * (len(row) - 1) for row in rows)
    height = sum(max(image.height for image in row) for row in rows) + GAP * (len(rows) - 1)
    whole = Image.new("RGB", (width, height), BACK)
    top = 0
    for row in rows:
        left = 0
        for image in row:
            whole.paste(image, (left, top))
            left += image.width + GAP
        top += max(image.height for image in row) + GAP
    whole.quantize(192, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    print(f"{name}.png: {width} x {height}, {(IMAGES / f'{name}.png').stat().st_size // 1000} kB")


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    environment(folder)
    server = start_server()
    try:
        errors = use_windows(folder)
    finally:
        server.terminate()
    for name in PICTURES if not errors else ():
        compose(folder, name)
    print("\n".join(errors), flush=True)
    os._exit(1 if errors else 0)  # the project's server thread must not keep it


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="screenshots-")).absolute())
