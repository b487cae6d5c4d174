"""A dialog with a picture that follows sliders and choices. Imported when a wizard opens: it needs tkinter."""

from __future__ import annotations

import tkinter as tk
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple, Union

from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES, Dialog

from ..engine.errors import CsprError
from ..viewers.window import FigurePanel, bold_font

WAIT = 150  # ms after the last move of a slider
SOFT = "#5b6874"
LIST_HEIGHT = 14


@dataclass(frozen=True)
class Slider:
    """A number: with a slider, and to be typed."""

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float


@dataclass(frozen=True)
class Choice:
    """One of some values, each with a line that explains it."""

    name: str
    label: str
    options: Sequence[Tuple[Any, str]]
    value: Any


Control = Union[Slider, Choice]
Values = Dict[str, Any]


class FigureDialog(Dialog):
    """Waits for the user. ``draw`` makes the figure of the values and ``say`` the sentence below it; after that
    ``resultYes()`` tells whether they were taken, and ``values`` what they are."""

    def __init__(
        self, parent: Any, title: str, caption: str, controls: Sequence[Control], draw: Callable[[Values], Any],
        say: Callable[[Values], str],
    ) -> None:
        self._heading, self._caption, self._controls = title, caption, controls
        self._draw, self._say = draw, say
        self.values: Values = {one.name: one.value for one in controls}
        self._timer = ""
        self._set: Dict[str, Callable[[Any], None]] = {}
        super().__init__(parent, title, buttons=[("Select", RESULT_YES), ("Cancel", RESULT_CANCEL)], default="Select")

    def body(self, master: Any) -> None:
        """Controls on the left, the picture on the right."""
        self.configure(bg="white")
        master.configure(bg="white")
        head = tk.Frame(master, bg="white")
        head.grid(row=0, column=0, columnspan=2, sticky="ew", padx=10, pady=(8, 6))
        tk.Label(head, text=self._heading, bg="white", font=bold_font()).grid(row=0, column=0, sticky="w")
        caption = tk.Label(head, text=self._caption, bg="white", fg=SOFT, justify=tk.LEFT, wraplength=900)
        caption.grid(row=1, column=0, sticky="w")
        left = tk.Frame(master, bg="white")
        left.grid(row=1, column=0, sticky="nw", padx=(10, 16), pady=4)
        for row, control in enumerate(self._controls):
            if isinstance(control, Slider):
                self._add_slider(left, 3 * row, control)
            else:
                self._add_choice(left, 3 * row, control)
        self._line = tk.Label(left, bg="white", justify=tk.LEFT, wraplength=330, anchor="w")
        self._line.grid(row=3 * len(self._controls), column=0, columnspan=2, sticky="w", pady=(14, 0))
        self.panel = FigurePanel(master)
        self.panel.frame.grid(row=1, column=1, sticky="news", padx=(0, 10))
        master.columnconfigure(1, weight=1)
        master.rowconfigure(1, weight=1)
        self.redraw()
        self.after_idle(self._tidy)

    def _tidy(self) -> None:
        """One background for what the host adds, and the whole window on the screen."""
        inside = list(self.winfo_children())
        while inside:
            widget = inside.pop()
            if isinstance(widget, (tk.Frame, tk.Label)):
                widget.configure(bg="white")
                inside += widget.winfo_children()
        self.update_idletasks()
        left = min(self.winfo_rootx(), self.winfo_screenwidth() - self.winfo_reqwidth() - 10)
        top = min(self.winfo_rooty(), self.winfo_screenheight() - self.winfo_reqheight() - 40)
        self.geometry(f"+{max(0, left)}+{max(0, top)}")

    def _add_slider(self, parent: Any, row: int, control: Slider) -> None:
        tk.Label(parent, text=control.label, bg="white", anchor="w").grid(row=row, column=0, sticky="w", pady=(8, 0))
        number, text = tk.DoubleVar(self, control.value), tk.StringVar(self, f"{control.value:g}")
        scale = tk.Scale(parent, variable=number, from_=control.low, to=control.high, resolution=control.step, length=250,
                         orient=tk.HORIZONTAL, showvalue=False, bg="white", highlightthickness=0, troughcolor="#dfe4e9")
        scale.grid(row=row + 1, column=0, sticky="w")
        entry = tk.Entry(parent, textvariable=text, width=8, bg="white")
        entry.grid(row=row + 1, column=1, padx=(8, 0))

        def moved(value: str) -> None:
            text.set(f"{float(value):g}")
            self._take(control.name, float(value))

        def typed(event: Any = None) -> str:
            try:
                value = float(text.get())
            except ValueError:
                value = self.values[control.name]
            text.set(f"{value:g}")
            number.set(value)
            self._take(control.name, value)
            return "break"  # Return must not close the dialog

        def put(value: Any) -> None:
            text.set(str(value))
            typed()

        scale.configure(command=moved)
        for event in ("<Return>", "<KP_Enter>", "<FocusOut>"):
            entry.bind(event, typed)
        self._set[control.name] = put

    def _add_choice(self, parent: Any, row: int, control: Choice) -> None:
        tk.Label(parent, text=control.label, bg="white", anchor="w").grid(row=row, column=0, sticky="w", pady=(8, 2))
        frame = tk.Frame(parent, bg="white")
        frame.grid(row=row + 1, column=0, columnspan=2, sticky="w")
        listed = tk.Listbox(frame, height=min(LIST_HEIGHT, len(control.options)), exportselection=False, bg="white",
                            width=min(56, max(len(text) for _, text in control.options) + 1), activestyle="none",
                            selectbackground="#2f7ebc", selectforeground="white", relief=tk.SOLID, borderwidth=1,
                            highlightthickness=0)
        listed.grid(row=0, column=0)
        if len(control.options) > LIST_HEIGHT:
            bar = tk.Scrollbar(frame, command=listed.yview)
            bar.grid(row=0, column=1, sticky="ns")
            listed.configure(yscrollcommand=bar.set)
        values = [value for value, _ in control.options]
        for _, text in control.options:
            listed.insert(tk.END, f" {text}")

        def put(value: Any) -> None:
            listed.selection_clear(0, tk.END)
            if value in values:
                listed.selection_set(values.index(value))
                listed.see(values.index(value))
                self._take(control.name, value)

        listed.bind("<<ListboxSelect>>", lambda event: put(values[(listed.curselection() or (0,))[0]]))
        put(control.value)
        self._set[control.name] = put

    def put(self, name: str, value: Any) -> None:
        """As if the user had typed or chosen it."""
        self._set[name](value)

    def _take(self, name: str, value: Any) -> None:
        if self.values[name] != value:
            self.values[name] = value
            if self._timer:
                self.after_cancel(self._timer)
            self._timer = self.after(WAIT, self.redraw)

    def redraw(self) -> None:
        """Draw the values as they are."""
        self._timer = ""
        try:
            self.panel.show(self._draw(self.values))
            self._line.configure(text=self._say(self.values))
        except CsprError as reason:
            self.panel.say(str(reason))

    def destroy(self) -> None:
        if self._timer:
            self.after_cancel(self._timer)
            self._timer = ""
        super().destroy()


def lines(*sentences: str) -> str:
    """Sentences below each other; empty ones are left out."""
    kept: List[str] = [one for one in sentences if one]
    return "\n\n".join(kept)
