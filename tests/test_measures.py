"""Every score has one name, and tables keep the columns they had."""

from __future__ import annotations

import re

from conftest import ROOT

from triptych.measures import MEASURES
from triptych.publishing.results import eval_results


def test_titles_are_each_their_own():
    for titles in ([m.column for m in MEASURES.values()], [m.card for m in MEASURES.values() if m.card]):
        assert len(set(titles)) == len(titles)
    assert MEASURES["psnr"].column == "PSNR, dB" and MEASURES["ssim"].column == "SSIM"
    assert all(bool(m.hub) == bool(m.card) for m in MEASURES.values()), "what the Hub is told, a card shows"


def test_only_inceptions_features_give_fid():
    names = {}
    for judge in ("inception-v3-compat", "features of mine"):
        scores = {"n": 10, "judge": judge, "frechet_distance": 1.0, "precision": 0.5, "split": "test"}
        results = eval_results(scores, "ClassConditionalPipeline", ("digits", "digits"))
        names[judge] = [(result.metric_type, result.metric_name) for result in results]
    assert names["inception-v3-compat"][0] == ("fid", "FID (n = 10)")
    assert names["features of mine"][0] == ("frechet_distance", "Frechet distance, features of mine (n = 10)")


def test_no_other_file_names_a_score_for_people():
    """A title in quotes, in code that could take it from here."""
    titles = "|".join(re.escape(m.column) for m in MEASURES.values() if m.column[0].isupper() or " " in m.column)
    allowed = {"measures.py", "latent_size.py"}  # the latter says of PSNR what kind of mean it is
    for room in ("triptych", "scripts/studies"):
        for path in (ROOT / room).rglob("*.py"):
            assert path.name in allowed or not re.search(f'"({titles})"', path.read_text()), path
