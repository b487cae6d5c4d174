"""A figure in a window of the host: with a caption, refreshed while a run goes on. tkinter is imported when one is opened."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable, List, Optional

from matplotlib.figure import Figure

from ..engine.errors import CsprError
from .runs import NotYet

DPI = 105
LOOK_EVERY = 3000  # ms
SHARE = 0.9  # of the screen that a window may take


class FigurePanel:
    """A tkinter frame (``frame``) that shows one figure at a time, or a sentence in its place."""

    def __init__(self, parent: Any, toolbar: bool = False, dpi: int = DPI) -> None:
        import tkinter as tk

        self.frame = tk.Frame(parent, bg="white")
        self.frame.rowconfigure(0, weight=1)
        self.frame.columnconfigure(0, weight=1)
        self.figure: Optional[Figure] = None
        self.message = ""
        self._toolbar, self._dpi = toolbar, dpi
        self._shown: List[Any] = []

    def show(self, figure: Figure) -> None:
        """Put a figure in the place of what is shown; it takes the size that the frame has, if it was shown before."""
        from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg, NavigationToolbar2Tk

        figure.set_facecolor("white")
        width, height = self._screen()
        inches = figure.get_size_inches()
        figure.set_dpi(min(self._dpi, SHARE * width / inches[0], 0.75 * height / inches[1]))
        canvas = FigureCanvasTkAgg(figure, master=self.frame)
        widget = canvas.get_tk_widget()
        widget.configure(highlightthickness=0, borderwidth=0)
        shown = [widget]
        if self._toolbar:
            bar = NavigationToolbar2Tk(canvas, self.frame, pack_toolbar=False)
            bar.update()
            for part in (bar, *bar.winfo_children()):
                part.configure(bg="white")
            bar.grid(row=1, column=0, sticky="w")
            shown.append(bar)
        self._replace(shown)
        widget.grid(row=0, column=0, sticky="news")
        canvas.draw()
        self.figure, self.message = figure, ""

    def say(self, text: str) -> None:
        """Put a sentence in the place of what is shown."""
        import tkinter as tk

        label = tk.Label(self.frame, text=text, bg="white", fg="#5b6874", wraplength=520, justify=tk.LEFT, padx=60, pady=90)
        self._replace([label])
        label.grid(row=0, column=0, sticky="news")
        self.figure, self.message = None, text

    def _replace(self, shown: List[Any]) -> None:
        for widget in self._shown:
            widget.destroy()
        self._shown = shown

    def _screen(self) -> Any:
        return self.frame.winfo_screenwidth(), self.frame.winfo_screenheight()


class FigureWindow:
    """A window with a figure, drawn anew when what ``stamp`` returns has changed.

    ``draw`` makes the figure; where it raises NotYet or CsprError its message is shown instead. ``state`` is the sentence at
    the bottom. ``parent`` is a tkinter widget whose main loop runs.
    """

    def __init__(
        self, parent: Any, title: str, caption: str, draw: Callable[[], Figure], stamp: Callable[[], Any],
        state: Callable[[], str],
    ) -> None:
        import tkinter as tk

        from pyworkflow.gui.widgets import Button
        from pyworkflow.utils import Icon

        self._draw, self._stamp, self._state = draw, stamp, state
        self.root = tk.Toplevel(parent, bg="white")
        self.root.withdraw()
        self.root.title(title)
        self.root.columnconfigure(0, weight=1)
        self.root.rowconfigure(1, weight=1)
        head = tk.Frame(self.root, bg="white")
        head.grid(row=0, column=0, sticky="ew", padx=14, pady=(10, 2))
        tk.Label(head, text=title, bg="white", font=bold_font(), anchor="w").grid(row=0, column=0, sticky="w")
        self._caption = tk.Label(head, text=caption, bg="white", fg="#5b6874", anchor="w", justify=tk.LEFT, wraplength=660)
        self._caption.grid(row=1, column=0, sticky="w", pady=(2, 0))
        self.panel = FigurePanel(self.root, toolbar=True)
        self.panel.frame.grid(row=1, column=0, sticky="news", padx=6)
        foot = tk.Frame(self.root)
        foot.grid(row=2, column=0, sticky="ew")
        foot.columnconfigure(0, weight=1)
        self._line = tk.Label(foot, anchor="w", justify=tk.LEFT, wraplength=470)
        self._line.grid(row=0, column=0, sticky="ew", padx=14, pady=6)
        self.refresh_button = Button(foot, "Refresh", Icon.ACTION_REFRESH, command=self.refresh)
        self.refresh_button.grid(row=0, column=1, padx=4, pady=6)
        self.close_button = Button(foot, "Close", Icon.ACTION_CLOSE, command=self.close)
        self.close_button.grid(row=0, column=2, padx=(4, 14), pady=6)
        self._seen: Any = None
        self.refresh()
        self.root.update_idletasks()
        wide = max(520, self.panel.frame.winfo_reqwidth())
        self._caption.configure(wraplength=wide - 20)
        self._line.configure(wraplength=wide - 230)
        _place(self.root, parent)
        self.root.deiconify()
        self.root.bind("<F5>", lambda event: self.refresh())
        self._timer = self.root.after(LOOK_EVERY, self._look)

    def refresh(self) -> None:
        """Draw from what is there now."""
        self._seen = self._stamp()
        try:
            self.panel.show(self._draw())
        except (NotYet, CsprError, OSError) as reason:
            self.panel.say(str(reason))
        self._tell()

    def _tell(self) -> None:
        """The sentence at the bottom; the last one stays where a run that starts anew removes what it is read from."""
        with suppress(CsprError, OSError):
            self._line.configure(text=self._state())

    def _look(self) -> None:
        try:
            if self._stamp() != self._seen:
                self.refresh()
            else:
                self._tell()
        finally:  # whatever went wrong, which tkinter reports, may be right at the next look
            self._timer = self.root.after(LOOK_EVERY, self._look)

    def close(self) -> None:
        self.root.after_cancel(self._timer)
        self.root.destroy()


class TextWindow:
    """A window with a text that can be scrolled and refreshed; ``read`` makes it."""

    def __init__(self, parent: Any, title: str, read: Callable[[], str]) -> None:
        import tkinter as tk
        from tkinter import font

        from pyworkflow.gui.widgets import Button
        from pyworkflow.utils import Icon

        self._read = read
        self.root = tk.Toplevel(parent, bg="white")
        self.root.withdraw()
        self.root.title(title)
        self.root.columnconfigure(0, weight=1)
        self.root.rowconfigure(0, weight=1)
        fixed = font.nametofont("TkFixedFont").copy()
        fixed.configure(size=10)
        self._font = fixed
        self.text = tk.Text(self.root, width=100, height=26, font=fixed, bg="white", relief=tk.FLAT, padx=14, pady=10,
                            wrap="word")
        bar = tk.Scrollbar(self.root, command=self.text.yview)
        self.text.configure(yscrollcommand=bar.set)
        self.text.grid(row=0, column=0, sticky="news")
        bar.grid(row=0, column=1, sticky="ns")
        foot = tk.Frame(self.root)
        foot.grid(row=1, column=0, columnspan=2, sticky="ew")
        foot.columnconfigure(0, weight=1)
        Button(foot, "Refresh", Icon.ACTION_REFRESH, command=self.refresh).grid(row=0, column=1, padx=4, pady=6)
        Button(foot, "Close", Icon.ACTION_CLOSE, command=self.close).grid(row=0, column=2, padx=(4, 14), pady=6)
        self.refresh()
        self.root.update_idletasks()
        _place(self.root, parent)
        self.root.deiconify()

    def refresh(self) -> None:
        """Read anew."""
        try:
            words = self._read()
        except (NotYet, CsprError, OSError) as reason:
            words = str(reason)
        self.text.configure(state="normal")
        self.text.delete("1.0", "end")
        self.text.insert("1.0", words)
        self.text.configure(state="disabled")

    def close(self) -> None:
        self.root.destroy()


def bold_font() -> Any:
    from pyworkflow.gui import gui

    return gui.getNamedFont("fontBold")


def _place(root: Any, parent: Any) -> None:
    """Beside the parent's upper left corner, inside the screen."""
    width, height = root.winfo_reqwidth(), root.winfo_reqheight()
    left = min(parent.winfo_rootx() + 60, root.winfo_screenwidth() - width - 10)
    top = min(parent.winfo_rooty() + 40, root.winfo_screenheight() - height - 40)
    root.geometry(f"+{max(0, left)}+{max(0, top)}")
