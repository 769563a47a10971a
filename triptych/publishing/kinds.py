"""The kinds of models that are published: what is said alike of every one of them, by the class that is saved.

A family brings its own: ``templates/<class>.md`` begins with the metadata (the Hub's; ``script``, which trains it; and
``next``, the commands that one may want after that), says in a paragraph what the model does, shows code that uses it,
and ends with its intended use and its limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

PLACE = "<this folder or repository>"  # where a card says what to load, until it is published
TEMPLATE = re.compile(
    r"---\n(?P<metadata>.*?)\n---\n(?P<what>.*?)\n```python\n(?P<usage>.*?)\n```\n"
    r"\n## Intended use\n(?P<intended>.*?)\n## Limits\n(?P<limits>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kind:
    """What is said alike of every model of one kind.

    Attributes:
        task: the Hub's name for what it does (``pipeline_tag``).
        tags: what it is found by.
        script: what trains it.
        what: one sentence.
        usage: code that loads it and shows what it can do.
        intended: what it is for.
        limits: what it is not for, and where it fails.
        library: whose ``from_pretrained`` loads it.
        next: scripts and their arguments, with blanks that ``training/follow_up.py`` fills; the first that can be
            filled are told when a training ends.
    """

    task: str
    tags: tuple[str, ...]
    script: str
    what: str
    usage: str
    intended: str
    limits: str
    library: str = "diffusers"
    next: tuple[str, ...] = ()


def read_kind(path: Path) -> Kind:
    """The kind that a template describes.

    Raises:
        ValueError: the template has another form.
    """
    found = TEMPLATE.fullmatch(path.read_text("utf-8"))
    if found is None:
        raise ValueError(f"{path} must hold metadata, what it is, code, '## Intended use' and '## Limits', in order.")
    metadata = yaml.safe_load(found["metadata"])
    what, intended, limits = (" ".join(found[part].split()) for part in ("what", "intended", "limits"))
    return Kind(
        task=metadata["pipeline_tag"],
        tags=tuple(metadata["tags"]),
        script=metadata["script"],
        what=what,
        usage=found["usage"],
        intended=intended,
        limits=limits,
        library=metadata["library_name"],
        next=tuple(metadata.get("next", ())),
    )


KINDS = {path.stem: read_kind(path) for path in sorted((Path(__file__).parent / "templates").glob("*.md"))}
