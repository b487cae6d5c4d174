"""PYP's configuration keys: what each is, what it does here, and how its value is written.

The declarations themselves are in ``pyp_keys_csp.py``, ``pyp_keys_refine.py`` and ``pyp_keys_data.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from ..errors import InputError

TRUE, FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Key:
    """One key. Of ``sets`` and ``ignored`` exactly one is given: what it sets here, or why it has no effect."""

    name: str
    kind: type  # bool, int, float or str
    default: Any  # PYP's; what holds here where the key is not given is this program's own
    unit: str
    meaning: str
    sets: str = ""  # names of settings, "project.x" and "resources.x", separated by blanks
    ignored: str = ""  # why it has no effect here
    old: Tuple[str, ...] = ()  # other names of the same
    choices: Tuple[str, ...] = ()
    least: Optional[float] = None
    count: int = 1  # numbers in a value "1,1,1"; 0: any
    by_iteration: bool = True  # a value may be a list a:b:c

    def parse(self, text: str, where: str) -> Any:
        """The value of a text, or the list of them where it is a:b:c. Raises InputError."""
        text = text.strip()
        parts = text.split(":") if self.by_iteration and not self._is_text() else [text]
        values = [self._parse_one(part.strip(), text, where) for part in parts]
        return values if len(values) > 1 else values[0]

    def write(self, value: Any) -> str:
        """The text of a value, such that ``parse`` gives the value back."""
        return ":".join(str(part) for part in value) if isinstance(value, list) else str(value)

    def _is_text(self) -> bool:
        return self.kind is str and not self.choices and self.count == 1

    def _parse_one(self, part: str, text: str, where: str) -> Any:
        if self.count != 1:
            return self._parse_row(part, text, where)
        if self.choices:
            if part not in self.choices:
                raise InputError(f"{where}: {self.name} is {_short(text)}; it must be {' or '.join(self.choices)}")
            return part
        if self.kind is str:
            return part
        value: Any = _bool(part) if self.kind is bool else _number(part, self.kind)
        if value is None:
            a_list = ", or a list a:b:c of them" if self.by_iteration else ""
            raise InputError(f"{where}: {self.name} is {_short(text)}; it must be {WORDS[self.kind]}{a_list}")
        if self.least is not None and value < self.least:
            raise InputError(f"{where}: {self.name} is {_short(text)}; it must be {self.least:g} or above")
        return value

    def _parse_row(self, part: str, text: str, where: str) -> str:
        numbers = [_number(item.strip(), self.kind) for item in part.split(",")]
        wrong = None in numbers or (self.count and len(numbers) != self.count)
        if wrong or (self.least is not None and min(n for n in numbers if n is not None) < self.least):
            want = f"{self.count or 'some'} {'whole ' if self.kind is int else ''}numbers with commas between them"
            at_least = "" if self.least is None else f", {self.least:g} or above"
            raise InputError(f"{where}: {self.name} is {_short(text)}; it must be {want}{at_least}")
        return ",".join(f"{n:g}" if isinstance(n, float) else str(n) for n in numbers)


def numbers_of(value: str) -> List[float]:
    """The numbers of a value "1,1,1"."""
    return [float(part) for part in value.split(",")]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _bool(text: str) -> Optional[bool]:
    word = text.lower()
    return True if word in TRUE else False if word in FALSE else None


def _number(text: str, kind: type) -> Union[int, float, None]:
    if not re.fullmatch(r"[-+]?(\d{1,300}\.?\d{0,300}|\.\d{1,300})([eE][-+]?\d{1,4})?", text, re.ASCII):
        return None
    if kind is int and re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    value = float(text)
    if not isfinite(value) or (kind is int and (value != int(value) or abs(value) > 1e15)):
        return None
    return int(value) if kind is int else value


# First parts of keys that belong to other steps of PYP, which has a program of its own for each.
OTHER_STEPS = (
    "gain", "stream", "movie", "ctf", "detect", "class2d", "denoise2d", "cryodrgn", "tomodrgn", "tomo", "sva", "relion",
    "mcore", "sharpen", "import", "micromon", "csp_tomo", "slurm_daemon", "slurm_class2d", "denoise", "model",
)


def other_step(name: str) -> str:
    """The first part of a key of another step of PYP, such as movie_ or tomo_rec_; empty where it is none."""
    return next((f"{first}_" for first in OTHER_STEPS if name.startswith(f"{first}_")), "")


def _collect() -> Tuple[Dict[str, Key], Dict[str, str], Dict[str, List[Key]]]:
    from . import pyp_keys_csp, pyp_keys_data, pyp_keys_refine

    groups: Dict[str, List[Key]] = {}
    for module in (pyp_keys_csp, pyp_keys_refine, pyp_keys_data):
        for title, keys in module.GROUPS:
            groups[title] = list(keys)
    everything = {key.name: key for keys in groups.values() for key in keys}
    old = {name: key.name for key in everything.values() for name in key.old}
    return everything, old, groups


class _Registry:
    """Made on first use: the modules of the declarations import this one."""

    def __init__(self) -> None:
        self._made: Optional[Tuple[Dict[str, Key], Dict[str, str], Dict[str, List[Key]]]] = None

    def _all(self) -> Tuple[Dict[str, Key], Dict[str, str], Dict[str, List[Key]]]:
        if self._made is None:
            self._made = _collect()
        return self._made

    def keys(self) -> Dict[str, Key]:
        return self._all()[0]

    def old_names(self) -> Dict[str, str]:
        return self._all()[1]

    def groups(self) -> Dict[str, List[Key]]:
        return self._all()[2]


_registry = _Registry()


def all_keys() -> Dict[str, Key]:
    """Every key by its name."""
    return _registry.keys()


def key_groups() -> Dict[str, List[Key]]:
    """The keys by the title of their group, in the order of the help page."""
    return _registry.groups()


def old_names() -> Dict[str, str]:
    """Other name -> name."""
    return _registry.old_names()


def find_key(name: str, where: str) -> Optional[Key]:
    """The key of a name, old or new; None for one of another step of PYP. Raises InputError with the nearest known name."""
    known = all_keys()
    if name in known:
        return known[name]
    if name in old_names():
        return known[old_names()[name]]
    if other_step(name):
        return None
    raise InputError(f"{where}: unknown key {_short(name)}; {nearest(name, [*known, *old_names()])}")


def nearest(name: str, names: Sequence[str]) -> str:
    """A phrase with the known name that is most like ``name``."""
    by_small = {known.lower(): known for known in names}
    found = get_close_matches(name[:80].lower(), list(by_small), n=1, cutoff=0.0)
    return f"did you mean {by_small[found[0]]}? `csp -help` lists all"
