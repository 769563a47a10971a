"""Model cards: what a model is for, how it was trained, how well it does, and how to load it."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from triptych.publishing.address import UNSET, repository_address
from triptych.publishing.kinds import KINDS, PLACE
from triptych.publishing.results import scores_table


def model_card(kind: str, name: str, facts: dict[str, Any], notes: str = "") -> str:
    """The card of a model that was just trained, in the Hub's form: YAML header, usage, a table of `facts`.

    Args:
        kind: the class that is saved, one of :data:`KINDS`.
        name: the run's.
        facts: how it was trained.
        notes: what else is to be said of it, below that table.
    """
    about = KINDS[kind]
    data = ModelCardData(
        license="apache-2.0", library_name=about.library, pipeline_tag=about.task, tags=list(about.tags)
    )
    trust = "" if about.library == "transformers" else TRUST
    text = (
        f"# {name}\n\n{fill(about.what, 120)}\n\n## How to load it\n\n```python\n{about.usage}\n```\n{trust}\n"
        f"## How it was trained\n\nBy Triptych's `scripts/{about.script}`.\n\n{table(facts)}\n\n"
    )
    text += f"{notes.strip()}\n\n" if notes else ""
    text += f"## Intended use\n\n{fill(about.intended, 120)}\n\n## Limits\n\n{fill(about.limits, 120)}\n"
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


TRUST = """
`trust_remote_code=True` lets the pipeline run the code that comes with its weights: `pipeline_*.py` and, where there
is one, the network's own file. Read them first; pass `revision=` to stay with what you have read.
"""


def table(rows: dict[str, Any]) -> str:
    """A Markdown table of two columns, without a heading."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def publish(
    card: ModelCard,
    kind: str,
    repo_id: str,
    revision: str | None = None,
    picture: str | None = None,
    run: str = "",
    results: list[EvalResult] | None = None,
) -> None:
    """Complete a model's card for a repository, in place; what its author wrote stays.

    Args:
        card: the card beside the weights.
        kind: the class that is saved.
        repo_id: the repository, which the code of the card will load from.
        revision: the branch it is published on, unless that is main.
        picture: a sample grid's path in the repository.
        run: what the run's records say, below "How it was trained".
        results: the scores.
    """
    about, data = KINDS[kind], card.data
    data.license = data.license or "apache-2.0"
    data.library_name, data.pipeline_tag = about.library, about.task
    data.tags = list(dict.fromkeys([*(data.tags or []), *about.tags]))
    place = repo_id if revision in (None, "main") else f'{repo_id}", revision="{revision}'
    text = card.text.replace(PLACE, place)
    if (address := repository_address()) != UNSET:
        text = text.replace("By Triptych's ", f"By [Triptych]({address})'s ")
    if picture:
        above, mark, below = text.partition("\n## ")
        image = f"![samples]({picture})"
        text = text if image in text else f"{above.rstrip()}\n\n{image}\n{mark}{below}"
    if run:
        text = with_section(text, "The run's records", run)
    if results:
        data.model_name, data.eval_results = repo_id.split("/")[-1], results
        text = with_section(text, "Scores", scores_table(results))
    for heading, body, before in (("Intended use", about.intended, "Limits"), ("Limits", about.limits, None)):
        if f"\n## {heading}\n" not in text:
            text = with_section(text, heading, fill(body, 120), before)
    card.text = text


def with_section(text: str, heading: str, body: str, before: str | None = "Intended use") -> str:
    """`text` with a section of this heading and body: in the place of an earlier one, before another, or at the end."""
    section = f"\n## {heading}\n\n{body.strip()}\n"
    above, found, below = text.partition(f"\n## {heading}\n")
    if found:
        _, mark, rest = below.partition("\n## ")
        return above + section + mark + rest
    above, mark, rest = text.partition(f"\n## {before}\n") if before else (text, "", "")
    return above.rstrip() + "\n" + section + mark + rest
