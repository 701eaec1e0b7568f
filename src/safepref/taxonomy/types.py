"""The taxonomy's record types; what YAML may hold is checked in `loader`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

from safepref.errors import InputError


def fold(name: str) -> str:
    """The form in which names are compared: lower case, spaces and hyphens as underscores."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def nearest(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the closest known one, else all of them (at most twelve)."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"


@dataclass(frozen=True, slots=True)
class Scheme:
    """Another system's codes: its key here, and (code, title) of each code in its own order."""

    name: str
    codes: tuple[tuple[str, str], ...]

    @property
    def code_names(self) -> tuple[str, ...]:
        """The codes alone, such as S1 ... S14."""
        return tuple(code for code, _ in self.codes)


@dataclass(frozen=True, slots=True)
class MicroCategory:
    """One risk category; `maps` holds (scheme, codes) with the closest code first."""

    id: str
    title: str
    description: str
    macro: str
    aliases: tuple[str, ...] = ()
    maps: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class MacroCategory:
    """A group of micro categories, named in the file's order."""

    id: str
    title: str
    description: str
    micros: tuple[str, ...]


@dataclass(frozen=True)
class Taxonomy:
    """Macro and micro categories with look-ups; equal files give equal taxonomies."""

    name: str
    source: str
    macros: tuple[MacroCategory, ...]
    micros: tuple[MicroCategory, ...]
    schemes: tuple[Scheme, ...] = ()

    @cached_property
    def _by_fold(self) -> dict[str, MicroCategory]:
        return {fold(name): micro for micro in self.micros for name in (micro.id, *micro.aliases)}

    @cached_property
    def _macro_by_id(self) -> dict[str, MacroCategory]:
        return {macro.id: macro for macro in self.macros}

    @property
    def micro_ids(self) -> tuple[str, ...]:
        """Ids of all micro categories, grouped by macro in the file's order."""
        return tuple(micro.id for micro in self.micros)

    @property
    def macro_ids(self) -> tuple[str, ...]:
        """Ids of all macro categories in the file's order."""
        return tuple(macro.id for macro in self.macros)

    def micro(self, name: str) -> MicroCategory:
        """The micro category of that id, in any of its spellings.

        Raises:
            InputError: no micro category has that name; the nearest one is named.
        """
        found = self._by_fold.get(fold(name))
        if found is not None:
            return found
        if name in self._macro_by_id:
            inside = ", ".join(self._macro_by_id[name].micros)
            raise InputError(
                f"category {name!r} of taxonomy {self.name!r} is a macro category: use one of {inside}"
            )
        hint = nearest(fold(name), list(self.micro_ids))
        raise InputError(f"unknown category {name!r} in taxonomy {self.name!r}: {hint}")

    def macro(self, name: str) -> MacroCategory:
        """The macro category of that id.

        Raises:
            InputError: no macro category has that id; the nearest one is named.
        """
        try:
            return self._macro_by_id[name]
        except KeyError:
            hint = nearest(name, list(self.macro_ids))
            raise InputError(f"unknown macro category {name!r} in taxonomy {self.name!r}: {hint}") from None

    def normalise(self, name: str) -> str:
        """The canonical id for a micro category's name in any spelling, `crime_kidnapp` to `crime_kidnap`.

        Raises:
            InputError: no micro category has that name.
        """
        return self.micro(name).id

    def macro_of(self, micro: str) -> str:
        """The id of the macro category that holds this micro category.

        Raises:
            InputError: no micro category has that name.
        """
        return self.micro(micro).macro

    def scheme(self, name: str) -> Scheme:
        """Another system's codes by its key, such as `llama_guard_3`.

        Raises:
            InputError: the taxonomy has no such scheme.
        """
        for scheme in self.schemes:
            if scheme.name == name:
                return scheme
        hint = nearest(name, [s.name for s in self.schemes]) if self.schemes else "it has none"
        raise InputError(f"unknown scheme {name!r} in taxonomy {self.name!r}: {hint}")

    def codes(self, micro: str, scheme: str) -> tuple[str, ...]:
        """The scheme's codes for a micro category, closest first; empty where the scheme has none.

        Raises:
            InputError: unknown category or scheme.
        """
        self.scheme(scheme)
        return dict(self.micro(micro).maps).get(scheme, ())

    def micros_for(self, scheme: str, code: str) -> tuple[str, ...]:
        """Micro categories that map to a code, those for which it is the closest code first.

        This reads a guard's verdict ("S10") back into the taxonomy.

        Raises:
            InputError: unknown scheme or code.
        """
        known = self.scheme(scheme)
        if code not in known.code_names:
            hint = nearest(code, list(known.code_names))
            raise InputError(f"unknown code {code!r} of scheme {scheme!r}: {hint}")
        ranked = [
            (codes.index(code), micro.id)
            for micro in self.micros
            if code in (codes := dict(micro.maps).get(scheme, ()))
        ]
        return tuple(name for _, name in sorted(ranked, key=lambda item: item[0]))
