"""What a card says of every model of a kind: a template for each class, of one form."""

from __future__ import annotations

import pytest
from conftest import ROOT
from huggingface_hub import ModelCard

from triptych.publishing import cards
from triptych.publishing.kinds import KINDS, PLACE, read_kind


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_makes_a_card(name):
    kind = KINDS[name]
    card = ModelCard(cards.model_card(name, "mine", {"data": "digits"}))
    assert (ROOT / "scripts" / kind.script).is_file() and f"scripts/{kind.script}" in card.text
    assert (card.data.pipeline_tag, card.data.library_name) == (kind.task, kind.library)
    assert card.data.tags == list(kind.tags) and kind.tags
    headings = [line for line in card.text.splitlines() if line.startswith("## ")]
    assert headings == ["## How to load it", "## How it was trained", "## Intended use", "## Limits"]
    assert card.text.count(PLACE) == 1, "which publishing replaces by the repository"
    compile(kind.usage, name, "exec")
    assert max(map(len, card.text.splitlines())) <= 120
    assert ("trust_remote_code=True" in card.text) == (kind.library == "diffusers")


def test_a_template_of_another_form_is_named(tmp_path):
    template = tmp_path / "Mine.md"
    metadata = "library_name: diffusers\npipeline_tag: x\ntags: [a]\nscript: y.py"
    good = f"---\n{metadata}\n---\n\nIt\ndraws.\n\n```python\nz\n```\n"
    template.write_text(f"{good}\n## Intended use\n\nThis.\n\n## Limits\n\nThat.\n")
    kind = read_kind(template)
    assert (kind.what, kind.usage, kind.intended, kind.limits) == ("It draws.", "z", "This.", "That.")
    template.write_text(good)
    with pytest.raises(ValueError, match=r"Mine\.md must hold .*'## Intended use' and '## Limits'"):
        read_kind(template)
