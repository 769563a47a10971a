"""From a training command to a repository: rights asked first, then the run's records, its scores and its card."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TOKEN, launch_command, launched
from huggingface_hub import EvalResult, ModelCard, metadata_eval_result
from stand_ins import make_denoiser, make_diffusion, make_vae

from triptych.errors import UserError
from triptych.pipelines.store import weights_hash
from triptych.publishing import cards, provenance, staging
from triptych.publishing.results import INCEPTION

VAE = ROOT / "pretrained/vae-mnist-z2"


SHORT = {"num_updates": "6", "run.tracker": "null", "run.progress": "false", "run.log_every": "3"}
SHORT |= {"model.hidden_channels": "[8, 16]", "model.hidden_dim": "16"}


def train(folder: Path, env: dict[str, str], name: str, **changes: str) -> subprocess.CompletedProcess:
    command = launch_command(script=ROOT / "scripts/train_vae.py")
    command += ["--config", str(ROOT / "configs/demo/vae_digits.yaml"), "--name", name]
    for key, value in (SHORT | {key.replace("__", "."): value for key, value in changes.items()}).items():
        command += [f"--{key}", value]
    done = launched(command, folder, env)
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_a_run_is_published_and_its_scores_later(hub, client, publish, tmp_path):
    done = train(tmp_path, client(hub), "trained", run__push_to="me/trained", run__push_private="true")
    assert done.returncode == 0 and f"Published: {hub.endpoint}/me/trained" in done.stdout, done.stderr
    repo, files = hub.repos["models", "me/trained"], hub.files("me/trained")
    records = {"training/config.yaml", "training/run.json", "training/log.jsonl"}
    saved = {"model_index.json", "pipeline.py", "pipeline_vae.py", "vae/config.json", "vae/vae.py"}
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert repo.private and files.keys() == {"README.md", "samples.png", weights} | records | saved
    run = tmp_path / "runs/trained"
    assert files[weights] == (run / "pipeline" / weights).read_bytes()
    assert files["samples.png"] == (run / "samples/update_00000006.png").read_bytes()
    config = yaml.safe_load(files["training/config.yaml"])
    assert config["num_updates"] == 6 and config["run"]["push_to"] is None, "who repeats it publishes it elsewhere"
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results is None and card.data.datasets is None, "nothing measured, no dataset of the Hub"
    assert "![samples](samples.png)" in card.text and "| images seen | 768 |" in card.text
    commit = json.loads((run / "run.json").read_text())["sessions"][0]["commit"]
    assert f"| code | commit {commit} |" in card.text and "update 6, images_seen 768, " in card.text

    # Before training: that repository is taken, and without a token there is none.
    for name, token, message in (("again", TOKEN, "holds a model already"), ("nobodys", None, "there is no token")):
        done = train(tmp_path, client(hub, token), name, run__push_to="me/trained", run__push_private="true")
        assert done.returncode != 0 and message in done.stderr and not (tmp_path / "runs" / name).exists(), done.stderr

    score = importlib.import_module("score_vae").main
    score(str(run / "pipeline"), num_importance_samples=2)
    done = publish(hub, run, "me/trained", "--private", "true", "--overwrite", "true")
    assert done.returncode == 0, done.stderr
    scores = json.loads((run / "scores.json").read_text())
    files = hub.files("me/trained")
    assert json.loads(files["scores.json"]) == scores | {"data": "digits"}
    card = ModelCard(files["README.md"].decode())
    found = {result.metric_type: result for result in card.data.eval_results if result.metric_type != "accuracy"}
    assert found.keys() == {"mse", "psnr", "ssim", "neg_elbo", "importance_weighted_nll"}
    for key, result in found.items():
        assert result.metric_value == pytest.approx(scores[key]) and result.metric_name.endswith("(n = 360)")
        assert (result.dataset_type, result.dataset_split) == ("digits", "test") and result.metric_args["n"] == 360
    assert f"| -ELBO, nats | {scores['neg_elbo']:.4g} | 360 | digits of scikit-learn, test | " in card.text
    assert "num_importance_samples" in found["neg_elbo"].metric_args.keys() - found["psnr"].metric_args.keys()
    assert ModelCard(card.content).data.to_dict() == card.data.to_dict(), "read again it is the same"
    assert card.text.index("## The run's records") < card.text.index("## Scores") < card.text.index("## Intended use")


def guided(interval: tuple[float, float] | None, guide: bool):
    pipeline = make_diffusion()
    settings = {"guidance_interval": interval, "guide": pipeline.unet if guide else None}
    return type(pipeline)(pipeline.unet, pipeline.scheduler, **settings)


@pytest.mark.parametrize(
    "make",
    [
        make_vae,
        make_denoiser,
        make_diffusion,
        lambda: guided((0.3, 5.0), False),
        lambda: guided(None, True),
        lambda: guided((0.0, float("inf")), True),
    ],
)
def test_every_kind_of_pipeline_can_be_published(tmp_path, make):
    pipeline = make()
    pipeline.save_pretrained(tmp_path / "saved")
    assert staging.kind_of(tmp_path / "saved", "model_index.json") == type(pipeline).__name__
    for text in ("", "[]", '{"_class'):
        (tmp_path / "saved/model_index.json").write_text(text)
        with pytest.raises(UserError, match=r"model_index\.json is torn"):
            staging.kind_of(tmp_path / "saved", "model_index.json")


def test_an_upload_that_fails_after_training_loses_nothing(hub, client, publish, tmp_path):
    hub.faults["POST /commit/"] = 1
    done = train(tmp_path, client(hub), "late", run__push_to="me/late")
    assert done.returncode != 0 and "me/late was not published" in done.stderr
    assert "publish it with `python scripts/publish.py runs/late me/late`" in done.stderr
    assert (tmp_path / "runs/late/pipeline/model_index.json").exists() and not hub.files("me/late")
    assert publish(hub, tmp_path / "runs/late", "me/late").returncode == 0 and hub.files("me/late")


def row(**more: object) -> dict:
    base = {"data": "uoft-cs/cifar10", "split": "test", "n": 1000, "seed": 0, "weights": weights_hash(str(VAE))}
    return base | more


def staged(tmp_path: Path, scores: list[Path], **about: object) -> tuple[ModelCard, Path]:
    folder = tmp_path / "staged"
    staging.stage(staging.find(VAE), folder, "me/vae", scores=scores, **about)
    return ModelCard.load(folder / "README.md"), folder


def test_scores_of_generation_and_restoration(tmp_path):
    generation = {
        "reference_split": "test", "reference_n": 10000, "judge": "features of judge", "scheduler": "DDIMScheduler",
        "num_inference_steps": 25, "source": str(tmp_path / "pipeline"), "frechet_distance": 12.5,
        "frechet_distance_interval": 0.5, "class_accuracy": 0.75, "floor": {"frechet_distance": 1.25},
    }  # fmt: skip
    (tmp_path / "scores.json").write_text(json.dumps(row(**generation)))
    rows = [row(level=f"sigma {k}", method="mine", psnr=30.0 - k / 10, psnr_interval=0.1) for k in (25, 50)]
    rows[0] |= {"judge": "f1n6er", "features": "features of judge", "perceptual_distance": 0.5, "ssim": float("inf")}
    rows += [row(level="sigma 25", method="noisy", psnr=20.0) | {"weights": None}, row(weights="another", psnr=1.0)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    card, folder = staged(tmp_path, [tmp_path / "scores.json", tmp_path / "rows.jsonl"], dataset="uoft-cs/cifar10")
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {
        "images recognised as the class asked for, by the features of judge (n = 1,000)": 0.75,
        "Frechet distance, features of judge (n = 1,000)": 12.5,
        "PSNR against the original, dB, sigma 25 (n = 1,000)": 27.5,
        "PSNR against the original, dB, sigma 50 (n = 1,000)": 25.0,
        "perceptual distance, features of judge, sigma 25 (n = 1,000)": 0.5,
    }
    distance = next(result for result in card.data.eval_results if result.metric_type == "frechet_distance")
    assert distance.metric_args["interval_95"] == 0.5 and distance.metric_args["floor_of_real_images"] == 1.25
    assert "12.5 ± 0.5 | 1,000 | uoft-cs/cifar10, test |" in card.text
    assert card.data.datasets == ["uoft-cs/cifar10"]
    assert str(tmp_path) not in (folder / "scores.json").read_text(), "no path of this machine"

    inception = row(**generation | {"judge": INCEPTION})
    (tmp_path / "scores.json").write_text(json.dumps(inception))
    card, _ = staged(tmp_path, [tmp_path / "scores.json"])
    assert "fid" in {result.metric_type for result in card.data.eval_results}, "only Inception's is called so"


def test_scores_that_say_nothing_of_these_weights(tmp_path):
    for name, text, message in (
        ("scores.json", json.dumps(row(weights="other", psnr=1.0)), "is of other weights"),
        ("rows.jsonl", json.dumps({"data": "x", "n": 1, "psnr": 1.0}), "is of other weights"),
        ("scores.json", json.dumps({"loss": 1.0}), "is no file of scores"),
        ("scores.json", "[1", "is no file of scores"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            staged(tmp_path, [tmp_path / name])
    with pytest.raises(UserError, match="does not exist"):
        staged(tmp_path, [tmp_path / "missing.json"])
    with pytest.raises(UserError, match=r"picture .* does not exist"):
        staged(tmp_path, [], picture=tmp_path / "missing.png")
    assert not (tmp_path / "staged").exists(), "whole or not at all"


def test_metadata_are_what_the_library_makes_of_them(tmp_path):
    """The header equals the one of huggingface_hub's own function for these results."""
    (tmp_path / "scores.json").write_text(json.dumps(row(psnr=15.25)))
    card, _ = staged(tmp_path, [tmp_path / "scores.json"])
    (theirs,) = metadata_eval_result(
        model_pretty_name="vae",
        task_pretty_name="",
        task_id="unconditional-image-generation",
        metrics_pretty_name="PSNR against the original, dB (n = 1,000)",
        metrics_id="psnr",
        metrics_value=15.25,
        dataset_pretty_name="uoft-cs/cifar10",
        dataset_id="uoft-cs/cifar10",
        dataset_split="test",
    )["model-index"]
    (ours,) = card.data.to_dict()["model-index"]
    theirs["results"][0]["task"].pop("name")
    theirs["results"][0]["metrics"][0].pop("verified")
    assert ours["results"][0]["metrics"][0].pop("args") == {"n": 1000, "seed": 0}
    assert ours == theirs
    assert all(isinstance(result, EvalResult) for result in card.data.eval_results)


def test_what_the_author_wrote_stays(tmp_path):
    card, _ = staged(tmp_path, [])
    written = ModelCard.load(VAE / "README.md")
    assert card.text == written.text.replace(cards.PLACE, "me/vae")
    assert card.data.license == "apache-2.0" and card.data.tags == written.data.tags


def test_a_card_without_our_sections_gets_them(tmp_path):
    card = ModelCard("---\ntags: [mine]\n---\n\n# Mine\n\nMy own words.\n")
    cards.publish(card, "VAEPipeline", "me/vae", "dev", "samples.png", "records", [])
    headings = [line for line in card.text.splitlines() if line.startswith(("#", "!"))]
    assert headings == ["# Mine", "![samples](samples.png)", "## The run's records", "## Intended use", "## Limits"]
    assert "My own words." in card.text and card.data.tags == ["mine", "vae", "variational-autoencoder"]
    again = card.content
    cards.publish(card, "VAEPipeline", "me/vae", "dev", "samples.png", "records", [])
    assert card.content == again


@pytest.mark.parametrize(
    ("measured", "trained_on", "dataset", "expected"),
    [
        ("digits", None, "me/mine", ("digits", "digits of scikit-learn")),
        ("uoft-cs/cifar10", None, None, ("uoft-cs/cifar10", "uoft-cs/cifar10")),
        ("/data/cifar10", "/data/cifar10", "uoft-cs/cifar10", ("uoft-cs/cifar10", "uoft-cs/cifar10, a local copy")),
        ("/data/cifar10", None, None, ("cifar10", "cifar10, a local copy")),
        ("/data/photos", "/data/cifar10", "uoft-cs/cifar10", ("photos", "photos, a local copy")),
    ],
)
def test_names_of_datasets(measured, trained_on, dataset, expected):
    assert provenance.name_dataset(measured, trained_on, dataset) == expected


def test_paths_of_this_machine_are_nobody_elses_business(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets/mine").mkdir(parents=True)
    tree = {"data": {"path": "/home/someone/cifar10"}, "more": ["../x/y", "~/z", "sets/mine", "uoft-cs/cifar10", 3]}
    cleaned = provenance.without_local_paths(tree)
    assert cleaned == {"data": {"path": "cifar10"}, "more": ["y", "z", "mine", "uoft-cs/cifar10", 3]}


def test_a_local_folder_is_no_dataset_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/cifar10").mkdir(parents=True)
    assert not provenance.is_hub_id("data/cifar10") and provenance.is_hub_id("uoft-cs/cifar10")
    assert not provenance.is_hub_id("digits") and not provenance.is_hub_id(None)
