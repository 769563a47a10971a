"""The VAE: its mathematics against torch.distributions, its training under accelerate, its pipeline elsewhere."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, environment, flags, launched
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from stand_ins import make_diffusion as make_diffusion_pipeline
from stand_ins import make_vae, vae_flags
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from models.vae import VAE, Posterior
from triptych.config.base import DataConfig, read_yaml
from triptych.config.vae import VaeConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.latents import prior_plane
from triptych.losses.vae import bernoulli_nll, free_bits, gaussian_nll, importance_weighted_bound, kl_to_standard_normal
from triptych.studies import stages
from triptych.training.run import Run


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- mathematics -----------------------------------------------------------------------------------------


def test_kl_and_its_gradient_are_torchs():
    mean = torch.randn(5, 3, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    ours = kl_to_standard_normal(mean, logvar)
    theirs = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(kl.sum(), (mean, logvar), retain_graph=True) for kl in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_bernoulli_is_torchs():
    logits = torch.randn(4, 1, 3, 3, generator=seeded(0))
    pixels = torch.randint(0, 2, (4, 1, 3, 3), generator=seeded(1)).float()
    theirs = -Independent(Bernoulli(logits=logits), 3).log_prob(pixels)
    torch.testing.assert_close(bernoulli_nll(logits, pixels), theirs)


def test_gaussian_is_torchs_and_so_is_the_gradient_of_sigma():
    mean, pixels = torch.rand(2, 4, 3, 2, 2, generator=seeded(0))
    log_sigma = torch.tensor(-0.7, requires_grad=True)
    ours = gaussian_nll(mean, pixels, log_sigma)
    theirs = -Independent(Normal(mean, log_sigma.exp()), 3).log_prob(pixels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), log_sigma, retain_graph=True) for x in (ours, theirs)))


def test_reparameterisation_has_the_posterior_it_says():
    posterior = Posterior(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]]))
    z = posterior.sample(torch.randn(200_000, 2, generator=seeded(0)))
    torch.testing.assert_close(z.mean(0), posterior.mean[0], atol=0.01, rtol=0)
    torch.testing.assert_close(z.var(0), posterior.logvar[0].exp(), atol=0.01, rtol=0.01)


def test_free_bits():
    kl = torch.tensor([[0.1, 3.0, 0.0], [0.3, 1.0, 0.0]], requires_grad=True)
    assert free_bits(kl, 0.0).item() == pytest.approx(kl.sum(1).mean().item())
    assert free_bits(kl, 0.5).item() == pytest.approx(0.5 + 2.0 + 0.5)
    (gradient,) = torch.autograd.grad(free_bits(kl, 0.5), kl)
    assert gradient[:, 1].tolist() == [0.5, 0.5] and not gradient[:, [0, 2]].any()


def linear_gaussian():
    """p(z) = N(0, I), p(x | z) = N(W z, s^2 I): log p(x) is known exactly."""
    weights = torch.randn(6, 2, generator=seeded(1), dtype=torch.float64)
    sigma = 0.6
    x = torch.randn(5, 2, generator=seeded(2), dtype=torch.float64) @ weights.T
    x = x + sigma * torch.randn(5, 6, generator=seeded(3), dtype=torch.float64)
    covariance = weights @ weights.T + sigma**2 * torch.eye(6, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance).log_prob(x)
    posterior_covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + weights.T @ weights / sigma**2)
    mean = x @ weights @ posterior_covariance / sigma**2
    # The best Gaussian with independent dimensions, widened: what an imperfect encoder would say.
    logvar = (posterior_covariance.diagonal() * 3).log().expand_as(mean)
    return weights, sigma, x, exact, mean, logvar


def bound(k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, sigma, x, exact, mean, logvar = linear_gaussian()
    z = mean + (0.5 * logvar).exp() * torch.randn(k, *mean.shape, generator=seeded(seed), dtype=torch.float64)
    log_likelihood = Independent(Normal(z @ weights.T, sigma), 1).log_prob(x)
    return importance_weighted_bound(log_likelihood, z, mean, logvar), exact


def test_importance_weighted_bound_meets_the_exact_likelihood():
    estimate, exact = bound(200_000, seed=0)
    torch.testing.assert_close(estimate, exact, atol=0.01, rtol=0)


def test_importance_weighted_bound_rises_with_k():
    means = [torch.stack([bound(k, seed)[0] for seed in range(1000)]).mean(0) for k in (1, 5, 50)]
    exact = bound(1, 0)[1]
    assert (means[0] < means[1]).all() and (means[1] < means[2]).all() and (means[2] < exact + 0.02).all()


def test_importance_weighted_bound_at_one_is_the_elbo():
    weights, sigma, x, _, mean, logvar = linear_gaussian()
    one = torch.stack([bound(1, seed)[0] for seed in range(3000)]).mean(0)
    z = mean + (0.5 * logvar).exp() * torch.randn(20_000, *mean.shape, generator=seeded(9), dtype=torch.float64)
    reconstruction = Independent(Normal(z @ weights.T, sigma), 1).log_prob(x).mean(0)
    elbo = reconstruction - kl_to_standard_normal(mean, logvar).sum(1)
    torch.testing.assert_close(one, elbo, atol=0.2, rtol=0)


# ---- network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["conv", "mlp"])
@pytest.mark.parametrize(("side", "channels", "latent_dim"), [(28, 1, 2), (32, 3, 16), (8, 1, 1)])
def test_shapes(architecture, side, channels, latent_dim):
    vae = VAE(side, channels, latent_dim, architecture, hidden_channels=(8, 16), hidden_dim=16)
    logits, posterior = vae(torch.rand(2, channels, side, side) * 2 - 1, torch.randn(2, latent_dim))
    assert logits.shape == (2, channels, side, side)
    assert posterior.mean.shape == posterior.logvar.shape == (2, latent_dim)
    loss = bernoulli_nll(logits, torch.rand_like(logits)).mean()
    loss = loss + kl_to_standard_normal(posterior.mean, posterior.logvar).sum(1).mean()
    loss.backward()
    assert all(p.grad is not None for p in vae.parameters())


def test_a_plain_autoencoder_does_not_sample():
    vae = VAE(8, 1, 2, hidden_channels=(8, 8), hidden_dim=8, variational=False)
    x = torch.rand(3, 1, 8, 8)
    a, b = (vae(x, torch.randn(3, 2, generator=seeded(s)))[0] for s in (1, 2))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"image_size": 30}, "multiple of 4"),
        ({"architecture": "vit"}, "architecture"),
    ],
)
def test_sizes_the_network_cannot_take(arguments, message):
    with pytest.raises(ValueError, match=message):
        VAE(**arguments)


# ---- pipeline ----------------------------------------------------------------------------------------------


def test_pipeline_encodes_decodes_and_interpolates():
    pipeline = make_vae()
    images = torch.rand(4, 1, 8, 8, generator=seeded(0))
    mean, logvar = pipeline.encode(images)
    again = pipeline.reconstruct(images)
    torch.testing.assert_close(again, pipeline.decode(mean))
    line = pipeline.interpolate(images[0], images[1], 5)
    torch.testing.assert_close(line[[0, -1]], again[:2])
    assert logvar.shape == (4, 3) and again.min() >= 0 and again.max() <= 1
    drawn = pipeline(2, generator=[seeded(1), seeded(2)], output_type="pt")
    torch.testing.assert_close(pipeline(1, generator=[seeded(2)], output_type="pt").images[0], drawn.images[1])
    assert pipeline(latents=torch.zeros(2, 3)).images[0].size == (8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.encode(torch.rand(1, 3, 8, 8)), r"\(B, 1, 8, 8\)"),
        (lambda p: p.encode(torch.full((1, 1, 8, 8), 255.0)), r"\[0, 1\]"),
        (lambda p: p.decode(torch.zeros(2, 4)), r"\(B, 3\)"),
        (lambda p: p(output_type="jpeg"), "output_type"),
        (lambda p: p(4, generator=[seeded(1), seeded(2)]), "2 generators were given for 4 images"),
        (lambda p: p(4, generator=(seeded(1),)), "1 generators were given for 4 images"),
        (lambda p: p(4, generator=[]), "0 generators"),
        (lambda p: p(1, generator=3), "torch.Generator"),
        (lambda p: p(2, generator=[1, 2]), "torch.Generator"),
        *((lambda p, n=n: p(n), "num_images must be a whole number") for n in (0, -1, 2.0, "2", None, True)),
        (lambda p: p(latents=torch.full((1, 3), torch.nan)), "latents hold NaN"),
        (lambda p: p(latents=torch.zeros(0, 3)), r"\(B, 3\)"),
        (lambda p: p(latents=np.zeros((1, 3))), "latents must be a tensor of floats, not ndarray"),
        (lambda p: p(latents=torch.full((1, 3), 1e38)), "gave NaN or infinite"),
        (lambda p: p.decode(torch.zeros(1, 3, dtype=torch.int64)), "not torch.int64"),
        (lambda p: p.encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), r"not torch.uint8.*images.float\(\) / 255"),
        (lambda p: p.encode(torch.full((1, 1, 8, 8), torch.nan)), "images hold NaN"),
        (lambda p: p.encode(torch.full((1, 1, 8, 8), -torch.inf)), "images hold NaN or infinite"),
        (lambda p: p.encode(torch.zeros(0, 1, 8, 8)), r"\(B, 1, 8, 8\), not \(0, 1, 8, 8\)"),
        (lambda p: p.encode(torch.zeros(1, 8, 8)), r"\(B, 1, 8, 8\)"),
        (lambda p: p.encode([torch.zeros(1, 8, 8)]), "not list"),
        (lambda p: p.reconstruct(np.zeros((1, 1, 8, 8))), "not ndarray"),
        (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.zeros(1, 8, 9)), r"last must be \(B, 1, 8, 8\)"),
        (
            lambda p: p.interpolate(torch.zeros(1, 8, 8).byte(), torch.zeros(1, 8, 8)),
            "first must be a tensor of floats",
        ),
        (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.ones(1, 8, 8), 0), "num_steps"),
        (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.full((1, 8, 8), torch.nan)), "last hold NaN"),
    ],
)
def test_pipeline_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_vae())


def test_numbers_and_generators_as_the_class_pipeline_takes_them():
    pipeline = make_vae()
    expected = pipeline(2, generator=[seeded(1), seeded(2)], output_type="pt").images
    for count in (np.int64(2), torch.tensor(2)):
        drawn = pipeline(count, generator=(seeded(1), seeded(2)), output_type="pt").images
        assert torch.equal(drawn, expected)
    assert torch.equal(
        pipeline(num_images_per_prompt=2, generator=[seeded(1), seeded(2)], output_type="pt")[0], expected
    )
    with pytest.raises(ValueError, match="batch_size is called num_images here"):
        pipeline(2, batch_size=2)


TRAVELLER = """
import sys
sys.modules["models"] = sys.modules["triptych"] = None
import torch
from diffusers import DiffusionPipeline
for folder, again in (("saved", "again"), ("again", "third")):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    torch.save(pipeline(latents=torch.linspace(-1, 1, 6).view(2, 3), output_type="pt").images, folder + ".pt")
    pipeline.save_pretrained(again)
"""


def test_pipeline_travels(tmp_path):
    pipeline = make_vae()
    pipeline.save_pretrained(tmp_path / "original")
    shutil.copytree(tmp_path / "original", tmp_path / "saved")
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = launched([sys.executable, "-c", TRAVELLER], tmp_path, env)
    assert done.returncode == 0, done.stderr
    expected = pipeline(latents=torch.linspace(-1, 1, 6).view(2, 3), output_type="pt").images
    for name in ("saved", "again"):
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.pt"), expected)


# ---- training ----------------------------------------------------------------------------------------------


@pytest.fixture
def main(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module("train_vae")

    def call(**changes: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", ["train_vae.py", *vae_flags(**changes)])
        configs = []
        command(lambda config: configs.append(config), VaeConfig)
        script.main(configs[0])
        return [json.loads(line) for line in (tmp_path / f"runs/{changes['name']}/log.jsonl").read_text().splitlines()]

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
    assert importlib.import_module("figures.curves").read_log(tmp_path / "runs/a") == rows
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
