"""The VAE's training, what is scored and drawn of it, and studies of several."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch
import yaml
from conftest import ROOT, flags, launched
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from stand_ins import make_diffusion as make_diffusion_pipeline
from stand_ins import vae_flags
from torch.distributions import Normal, kl_divergence

from triptych.config.base import DataConfig, read_yaml
from triptych.config.vae import VaeConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.latents import prior_plane
from triptych.jsonl import read_rows
from triptych.studies import stages
from triptych.training.run import Run


@pytest.fixture
def main(train_here):
    """The log of a tiny training."""

    def call(**changes: str) -> list[dict]:
        return read_rows(train_here("train_vae", VaeConfig, vae_flags(**changes)) / "log.jsonl")

    return call


@pytest.mark.parametrize("likelihood", ["bernoulli", "binarized_bernoulli", "gaussian"])
def test_every_part_of_the_loss_is_logged_apart(main, tmp_path, likelihood):
    rows = main(name="x", likelihood=likelihood, num_kl_warmup_updates=6)
    for row in rows:
        assert row["neg_elbo"] == pytest.approx(row["reconstruction"] + row["kl"], rel=1e-5)
    assert [row["kl_weight"] for row in rows] == pytest.approx([1 / 3, 5 / 6, 1, 1])
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "runs/x/pipeline", trust_remote_code=True)
    assert (pipeline.vae.log_sigma is not None) == (likelihood == "gaussian")


def test_a_plain_autoencoder_has_no_kl(main, tmp_path):
    rows = main(name="ae", model__variational="false")
    assert all(row["loss"] == row["reconstruction"] and "kl" not in row for row in rows)
    importlib.import_module("score_vae").main(str(tmp_path / "runs/ae/pipeline"))
    assert "kl" not in json.loads((tmp_path / "runs/ae/scores.json").read_text())


@pytest.mark.parametrize("likelihood", ["bernoulli", "binarized_bernoulli", "gaussian"])
def test_scores(main, tmp_path, likelihood):
    """Against the same quantities computed here from the pipeline's own answers."""
    main(
        name="x",
        likelihood=likelihood,
        num_updates=60,
        optimizer__lr=3e-3,
        sigma="0.3" if "g" in likelihood else "null",
    )
    score = importlib.import_module("score_vae").main
    folder = str(tmp_path / "runs/x/pipeline")
    score(folder, num_importance_samples=20)
    scores = json.loads((tmp_path / "runs/x/scores.json").read_text())
    score(folder, num_importance_samples=200, output=tmp_path / "more.json")
    more = json.loads((tmp_path / "more.json").read_text())
    assert scores["n"] == 360 and len(scores["kl_per_dimension"]) == 2
    assert scores["neg_elbo"] == pytest.approx(scores["reconstruction"] + sum(scores["kl_per_dimension"]), rel=1e-5)
    assert more["importance_weighted_nll"] <= scores["importance_weighted_nll"] + 0.01 <= scores["neg_elbo"] + 0.02
    score(folder, num_importance_samples=20, dtype="bfloat16", output=tmp_path / "rounded.json")
    rounded = json.loads((tmp_path / "rounded.json").read_text())
    for key in ("neg_elbo", "importance_weighted_nll"):
        assert 0 < abs(rounded[key] - scores[key]) < 0.05, "another precision, nearly the same number"
    assert rounded["mse"] == scores["mse"], "reconstructions are always measured in fp32"
    if likelihood == "bernoulli":
        pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
        test = load_images(DataConfig(split="test")).__getitems__(range(360))["pixels"] / 255
        mean, logvar = pipeline.encode(test)
        assert scores["mse"] == pytest.approx((pipeline.reconstruct(test) - test).square().mean().item(), rel=1e-4)
        kl = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean(0)
        assert scores["kl_per_dimension"] == pytest.approx(kl.tolist(), rel=1e-4)
        mse = (pipeline.reconstruct(test) - test).square().flatten(1).mean(1)
        assert scores["psnr"] == pytest.approx(-10 * mse.log10().mean().item(), rel=1e-4)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_drawing(main, tmp_path, latent_dim):
    main(name="x", num_updates=2, run__log_every=1, model__latent_dim=latent_dim)
    draw = importlib.import_module("figures.vae").main
    draw(str(tmp_path / "runs/x/pipeline"), output=tmp_path / "figures", num_images=60, perplexity=5, plane_side=4)
    made = {path.stem for path in (tmp_path / "figures").iterdir()}
    always = {"latent_space", "reconstructions", "interpolations", "prior_samples", "learning_curves"}
    assert made == always | ({"latent_plane"} if latent_dim == 2 else set())
    if latent_dim == 3:
        with pytest.raises(UserError, match=r"perplexity 80 must be smaller than the sample \(60 images\)"):
            draw(str(tmp_path / "runs/x/pipeline"), output=tmp_path / "no", num_images=60, perplexity=80)
        assert not (tmp_path / "no").exists()


def test_comparison_trains_measures_and_reuses(study, tmp_path):
    """Two sizes; the second call finds everything there and launches nothing. Where the config would publish, which
    needs a Hub before training, the parts of a study don't."""
    flags = json.dumps(vae_flags(num_updates=3))
    config = yaml.safe_load((ROOT / "configs/demo/vae_digits.yaml").read_text())
    config["run"] = config.get("run", {}) | {"push_to": "me/digits"}
    (tmp_path / "publishing.yaml").write_text(yaml.safe_dump(config))
    command = ["latent_size", "publishing.yaml"]
    command += ["--latent_dims", "[1, 3]", "--seeds", "[5]", "--output", "cmp", "--num_importance_samples", "3"]
    command += ["--train_flags", flags]
    for _ in range(2):
        done = study(*command)
        assert done.returncode == 0, done.stderr
    assert "Saved the pipeline" not in done.stdout
    results = json.loads((tmp_path / "cmp/comparison.json").read_text())
    assert {key: len(value) for key, value in results.items()} == {"1": 1, "3": 1}
    lines = (tmp_path / "cmp/comparison.md").read_text().splitlines()
    assert lines[2].startswith("| 1 |") and f"{results['1'][0]['neg_elbo']:.2f}" in lines[2]
    assert (tmp_path / "cmp/comparison.png").exists()
    assert all(read_yaml(path)["run"]["push_to"] is None for path in tmp_path.glob("cmp/*/config.yaml"))


@pytest.mark.parametrize("flag", [["--run.push_to", "me/digits"], ["--run.push_to=me/digits"]])
def test_a_part_of_a_study_is_not_published(tmp_path, monkeypatch, flag):
    monkeypatch.setattr(stages, "train", lambda *_: pytest.fail("trained"))
    config = ROOT / "configs/demo/vae_digits.yaml"
    with pytest.raises(UserError, match=r"Leave it out.*publish\.py .*x user/name"):
        stages.train_once("train_vae.py", config, tmp_path, "x", "--seed", 1, *flag)


def test_scoring_refuses(main, tmp_path):
    main(name="x", num_updates=1)
    score = importlib.import_module("score_vae").main
    with pytest.raises(UserError, match="the data has"):
        score(str(tmp_path / "runs/x/pipeline"), DataConfig(image_size=12))
    with pytest.raises(UserError, match="does not exist"):
        score(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="num_neighbors 2000 is more than the 1437 images of the split 'train'"):
        score(str(tmp_path / "runs/x/pipeline"), num_neighbors=2000)
    make_diffusion_pipeline().save_pretrained(tmp_path / "diffusion")
    with pytest.raises(UserError, match="needs a pipeline with a vae"):
        score(str(tmp_path / "diffusion"))


def test_validation_measures_what_scoring_measures(main, tmp_path):
    """Held-out ELBO while training, at the updates asked for and at the end, and nothing of the training changes."""
    settings = {"validation_split": "test", "validate_every": 6}
    rows = main(name="x", **settings)
    assert [row["update"] for row in rows if "validation_neg_elbo" in row] == [6, 12]
    for row in rows[1::2]:
        parts = row["validation_reconstruction"] + row["validation_kl"]
        assert row["validation_neg_elbo"] == pytest.approx(parts, rel=1e-6)
    importlib.import_module("score_vae").main(str(tmp_path / "runs/x/pipeline"), num_importance_samples=20)
    scores = json.loads((tmp_path / "runs/x/scores.json").read_text())
    assert rows[-1]["validation_kl"] == pytest.approx(scores["kl"], rel=1e-3)
    assert rows[-1]["validation_reconstruction"] == pytest.approx(scores["reconstruction"], rel=0.02)
    without = main(name="y")
    assert [{k: v for k, v in row.items() if not k.startswith("validation")} for row in rows] == without
    with pytest.raises(SystemExit):
        main(name="z", validate_every=5)


def test_curves_of_several_runs(main, tmp_path):
    main(name="a", validation_split="test", validate_every=3)
    main(name="b")
    draw = importlib.import_module("figures.curves").main
    runs = f"{tmp_path / 'runs/a'}, {tmp_path / 'runs/b'}"
    for against in ("minutes", "images", "updates"):
        draw(runs, "neg_elbo,kl", against, output=tmp_path / f"{against}.png")
        assert (tmp_path / f"{against}.png").exists()
    rows = importlib.import_module("figures.curves").read_log(tmp_path / "runs/a")
    assert [row["minutes"] for row in rows] == sorted(row["minutes"] for row in rows)
    with pytest.raises(UserError, match=r"b has logged no 'validation_kl'. It has: .*neg_elbo"):
        draw(runs, "validation_kl")
    for name in ("log", "timing"):  # a run that is still training: a row not yet timed, half a row
        path = tmp_path / f"runs/a/{name}.jsonl"
        path.write_text(path.read_text() + ('{"update": 999}\n{"upd' if name == "log" else '{"update": 9'))
    assert importlib.import_module("figures.curves").read_log(tmp_path / "runs/a") == [*rows, {"update": 999}]
    draw(runs, "kl", "minutes", output=tmp_path / "still.png")
    (tmp_path / "runs/b/timing.jsonl").unlink()  # a record that keeps no times
    draw(runs, "kl", "images", output=tmp_path / "untimed.png")
    with pytest.raises(UserError, match="b doesn't tell the minutes of its rows"):
        draw(runs, "kl", "minutes", output=tmp_path / "no.png")
    with pytest.raises(UserError, match="not a run"):
        draw(str(tmp_path))
    with pytest.raises(UserError, match="2 runs need as many different names"):
        draw(runs, labels="a,a")


def test_autoencoder_comparison(main, tmp_path):
    for name, variational, latent_dim in (("vae", "true", 2), ("ae", "false", 2), ("three", "true", 3)):
        main(name=name, num_updates=2, model__variational=variational, model__latent_dim=latent_dim)
    compare = importlib.import_module("studies.autoencoder").main
    vae, ae, three = (str(tmp_path / f"runs/{name}/pipeline") for name in ("vae", "ae", "three"))
    compare(vae, ae, output=tmp_path / "x.png", num_images=50, plane_side=4, samples_side=3)
    assert (tmp_path / "x.png").exists()
    with pytest.raises(UserError, match="has 3 latent variables"):
        compare(three, ae)
    with pytest.raises(UserError, match="Give the VAE first"):
        compare(ae, vae)


def test_the_plane_holds_equal_shares_of_the_prior():
    plane = prior_plane(4).view(4, 4, 2)
    assert (plane[0, :, 0].diff() > 0).all() and (plane[:, 0, 1].diff() < 0).all(), "z1 to the right, z2 upwards"
    torch.testing.assert_close(Normal(0.0, 1.0).cdf(plane[0, :, 0]), torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_training_learns(main):
    rows = main(name="learns", num_updates=150, run__log_every=25, optimizer__lr=3e-3, batch_size=32)
    assert rows[-1]["neg_elbo"] < 0.85 * rows[0]["neg_elbo"]


def test_bad_input(main):
    with pytest.raises(SystemExit):
        main(name="zero", model__latent_dim=0)
    with pytest.raises(UserError, match="multiple of 4"):
        main(name="odd", data__image_size=9)


def test_resume_is_exact_here_too(main, tmp_path):
    """Stopped in the middle by a poisoned step, resumed: the log and the weights of an uninterrupted run."""
    whole = main(name="whole")
    original = Run.randn

    def dies(self, *shape):
        if self.update == 6:
            raise KeyboardInterrupt
        return original(self, *shape)

    Run.randn = dies
    try:
        with pytest.raises(KeyboardInterrupt):
            main(name="broken")
    finally:
        Run.randn = original
    assert main(name="broken", resume="latest") == whole
    a, b = (
        load_file(tmp_path / f"runs/{n}/pipeline/vae/diffusion_pytorch_model.safetensors") for n in ("whole", "broken")
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_diffusion_run_is_not_resumed_as_a_vae(main, tmp_path):
    main(name="mine", num_updates=1)
    script = [sys.executable, str(ROOT / "scripts/train_diffusion.py"), *flags(name="mine", resume="latest")]
    done = launched(script, tmp_path)
    assert done.returncode == 2 and "VaeConfig, not of DiffusionConfig" in done.stderr, done.stderr
