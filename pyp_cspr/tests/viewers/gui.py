"""To use the host's windows as a user does: wait for windows, press buttons, look at what is on the screen."""

from __future__ import annotations

import os
import time
import traceback
from typing import Any, Callable, Generator, List, Union

Step = Union[float, Callable[[], Any]]  # seconds, or what must become true


class Driver:
    """Runs a generator inside the main loop of tkinter, whatever windows open on the way.

    What the generator yields is waited for: seconds, or a function until it returns something true. What opens a window that
    waits for the user must be called through ``later``.
    """

    def __init__(self, root: Any, steps: Generator[Step, None, None], limit: float = 120.0) -> None:
        self.root, self._steps, self._limit = root, steps, limit
        self.errors: List[str] = []
        self._wait: Step = 0.0
        self._since = time.monotonic()
        # tkinter reports to the first window of all, which the host hides behind the project's
        first = root._root()
        first.report_callback_exception = lambda *error: self.errors.append("".join(traceback.format_exception(*error)))
        root.after(100, self._look)

    def _look(self) -> None:
        ready = self._wait() if callable(self._wait) else time.monotonic() - self._since >= self._wait
        if not ready and time.monotonic() - self._since > self._limit:
            titles = [one.title() for one in windows(self.root)]
            return self._end(f"waited {self._limit} s in vain in {self._place()}; open windows: {titles}")
        if ready:
            try:
                self._wait = next(self._steps)
                self._since = time.monotonic()
            except StopIteration:
                return self._end()
            except Exception:  # noqa: BLE001 - whatever it is, the windows must close
                return self._end(traceback.format_exc())
        self.root.after(30, self._look)

    def _place(self) -> str:
        """Where the generator is, in the generators that it waits for."""
        one, names = self._steps, []
        while one is not None and one.gi_frame is not None:
            names.append(f"{one.gi_code.co_name}, line {one.gi_frame.f_lineno}")
            one = one.gi_yieldfrom
        return " > ".join(names)

    def _end(self, error: str = "") -> None:
        if error:
            self.errors.append(error)
        for window in reversed(windows(self.root)):  # a dialog that waits for its window does not end with the main loop
            window.destroy()
        self._quit()

    def _quit(self) -> None:
        """Leave the main loops, of which every window of the host has one, from the innermost to the first."""
        self.root.after(20, self._quit)
        self.root.quit()


def later(root: Any, call: Callable[[], Any]) -> Callable[[], bool]:
    """Call it from the main loop, so that a window that it opens does not stop the caller; tells whether it has returned."""
    returned: List[bool] = []

    def called() -> None:
        call()
        returned.append(True)

    root.after(1, called)
    return lambda: bool(returned)


def double_click(widget: Any, x: int, y: int) -> None:
    """Two presses of the left button at a place of a widget; no window needs to have the keyboard for it."""
    now = int(1000 * time.monotonic()) % 2**31  # later than those before, or they would count together
    for time_ms in (now, now + 1):
        widget.event_generate("<ButtonPress-1>", x=x, y=y, time=time_ms)
        widget.event_generate("<ButtonRelease-1>", x=x, y=y, time=time_ms)


def windows(root: Any) -> List[Any]:
    """All open windows, the oldest first."""
    import tkinter as tk

    found = []
    for child in root.winfo_children():
        if isinstance(child, tk.Toplevel) and child.winfo_viewable():
            found.append(child)
        found += windows(child)
    return found


def newest(root: Any, words: str = "") -> Any:
    """The window opened last whose title holds ``words``, or None."""
    found = [one for one in windows(root) if words in one.title()]
    return found[-1] if found else None


def parts(widget: Any, kind: str = "") -> List[Any]:
    """All widgets inside, of a tkinter class, those of other windows left out."""
    import tkinter as tk

    found = []
    for child in widget.winfo_children():
        if isinstance(child, tk.Toplevel):
            continue
        if not kind or child.winfo_class() == kind:
            found.append(child)
        found += parts(child, kind)
    return found


def button(widget: Any, text: str) -> Any:
    """The button of that text inside a window."""
    return next(one for one in parts(widget, "Button") if one.cget("text") == text)


def press(root: Any, widget: Any, text: str) -> None:
    """Press a button, from the main loop."""
    later(root, button(widget, text).invoke)


def row_button(form: Any, parameter: str, text: str) -> Any:
    """The button of a parameter's row in a form: Select, Wizard, Visualize, Help."""
    return button(form.widgetDict[parameter].btnFrame, text)


def texts(widget: Any) -> str:
    """What the labels of a window say."""
    return "\n".join(str(one.cget("text")) for one in parts(widget, "Label"))


def picture(window: Any) -> Any:
    """What is on the screen where a window is, as a PIL image."""
    from PIL import ImageGrab

    window.lift()
    window.update()
    left, top = window.winfo_rootx(), window.winfo_rooty()
    right = min(left + window.winfo_width(), window.winfo_screenwidth())
    bottom = min(top + window.winfo_height(), window.winfo_screenheight())
    return ImageGrab.grab((max(0, left), max(0, top), right, bottom), xdisplay=os.environ["DISPLAY"])
