"""One colour and one mark for one method, in every chart of the project; the report reads the same palette.json.

The colours are those of Okabe and Ito (2008), which the colour-blind can tell apart, the last two darkened for print;
marks tell curves apart where there is no colour at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PALETTE = json.loads(Path(__file__).with_name("palette.json").read_text())
COLOURS: list[str] = _PALETTE["colours"]
_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "hollow": "o"}
_LINES = ("-", "--", ":", "-.")
_FURTHER = ("D", "v", "P")  # marks of the second, third and fourth that share a colour: dots have no line


def look_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each of `names` is drawn: matplotlib's color, marker, markerfacecolor, linestyle, and its label in words.

    A name of the palette, or one that only adds to it ("diffusion, 25 steps", "GAN 0.01 seed 1"), always looks the
    same; where several add to the same one they share its colour and differ in line and mark. Other names take the
    colours that are left, in their order.
    """
    names = list(names)
    bases = {name: _base(name) for name in names}
    taken = {_PALETTE["looks"][base][0] for base in bases.values() if base}
    left = [i for i in range(len(COLOURS)) if i not in taken] or list(range(len(COLOURS)))
    found: dict[str, dict[str, Any]] = {}
    used: dict[str, int] = {}  # how many names add to the same one
    unknown = 0
    for name in names:
        if base := bases[name]:
            colour, mark = _PALETTE["looks"][base]
            turn = used.get(base, 0)
            used[base] = turn + 1
        else:
            colour, turn = left[unknown % len(left)], unknown // len(left)
            mark = _PALETTE["marks"][unknown % len(_PALETTE["marks"])]
            unknown += 1
        found[name] = {
            "color": COLOURS[colour],
            "marker": _FURTHER[(turn - 1) % len(_FURTHER)] if turn else _MARKERS[mark],
            "markerfacecolor": "white" if mark == "hollow" else COLOURS[colour],
            "linestyle": _LINES[turn % len(_LINES)],
            "label": in_words(name),
        }
    return found


def in_words(name: str) -> str:
    """`name` as a reader calls it: "DPM-Solver++" for a class of diffusers, "KL divergence" for a key of a log."""
    if name.startswith("validation_"):
        return f"held-out {in_words(name.removeprefix('validation_'))}"
    plain = name.removesuffix("Scheduler")
    return _PALETTE["words"].get(plain, plain.replace("_", " "))


def _base(name: str) -> str | None:
    """The longest name of the palette that `name` is, or begins with."""
    said = [name.removesuffix("Scheduler"), in_words(name)]
    known = [known for known in _PALETTE["looks"] if any(re.match(rf"{re.escape(known)}(\W|$)", one) for one in said)]
    return max(known, key=len, default=None)
