"""What a PYP project and a command line ask for: values by key, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List

from .pyp_keys import all_keys, find_key, old_names

FIRST_ITERATION = 2  # PYP's iteration 1 is the starting map


@dataclass
class PypConfiguration:
    """Values that were given, by the key's present name; a list holds one for each iteration."""

    values: Dict[str, Any] = field(default_factory=dict)
    origins: Dict[str, str] = field(default_factory=dict)  # "file:line" or "command line"
    others: Dict[str, str] = field(default_factory=dict)  # keys of other steps of PYP -> origin

    def give(self, name: str, text: str, origin: str) -> None:
        """Set a key, by an old or new name, over what it was. Raises InputError for names and values that cannot be."""
        key = find_key(name, origin)
        if key is None:
            self.others[name] = origin
            return
        self.values[key.name] = key.parse(text, origin)
        self.origins[key.name] = origin

    def given(self, name: str) -> bool:
        """Whether the user gave the key."""
        return self._known(name) in self.values

    def value(self, name: str, iteration: int = FIRST_ITERATION) -> Any:
        """The key's value in an iteration, numbered from 2, or PYP's default.

        Of a list a:b:c iteration 2 takes a, 3 takes b; the last value repeats.
        """
        name = self._known(name)
        value = self.values.get(name, all_keys()[name].default)
        if isinstance(value, list):
            return value[min(max(iteration - FIRST_ITERATION, 0), len(value) - 1)]
        return value

    def origin(self, name: str) -> str:
        """Where the key's value came from; "default" where it was not given."""
        return self.origins.get(self._known(name), "default")

    def merged(self, other: PypConfiguration) -> PypConfiguration:
        """These values with those of ``other`` over them."""
        return PypConfiguration({**self.values, **other.values}, {**self.origins, **other.origins},
                                {**self.others, **other.others})

    def names(self) -> List[str]:
        """The keys that were given, in the order of the help page."""
        return [name for name in all_keys() if name in self.values]

    @staticmethod
    def _known(name: str) -> str:
        name = old_names().get(name, name)
        if name not in all_keys():
            raise KeyError(f"no key {name!r}")
        return name
