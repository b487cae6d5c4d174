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
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
SAMPLE = {"nSeries": 2, "nParticles": 60, "nTilts": 41, "boxSize": 48, "pixelSize": 5.0}
SCREEN = "1600x1000x24"
GAP, BACK, EDGE = 16, (255, 255, 255), (200, 206, 212)
# picture of the guide: rows of windows
PICTURES = {
    "scipion_project": [["project"]],
    "scipion_form": [["refine_form_0", "refine_form_1"]],
    "scipion_wizards": [["wizard_symmetry"], ["wizard_mapBox"]],
    "scipion_viewer": [["viewer_form", "showFsc"], ["showCourse", "showWeights"]],
    "scipion_particles": [["showMap", "showDirections"], ["showGeometry", "showShifts"]],
    "scipion_filter": [["wizard_byScore"]],
}


def environment(folder: Path) -> None:
    """What the host reads when it is imported; the plugin is found even where this is only a checkout."""
    metadata = folder / "metadata" / "scipion_em_pyp_cspr-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scipion-em-pyp-cspr\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[pyworkflow.plugin]\npyp_cspr = pyp_cspr\n")
    (folder / "hosts.conf").write_text(HOSTS)
    places = [str(ROOT), str(metadata.parent)]
    sys.path[:0] = places
    os.environ.update(
        SCIPION_HOME=str(folder), SCIPION_USER_DATA=str(folder / "data"), SCIPION_HOSTS=str(folder / "hosts.conf"),
        SCIPION_DOMAIN="pwem", SCIPION_NOTIFY="False", SCIPION_TEST_NOSYNC="True", SCIPION_PYTHON=sys.executable,
        SCIPION_PRIORITY_PACKAGE_LIST="pwem tomo", NO_COLOR="1", PYTHONPATH=os.pathsep.join(places), BROWSER="true",
    )


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
