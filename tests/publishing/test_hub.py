"""Publishing with the real client, against a Hub on loopback, and loading from it by id, elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from conftest import ROOT, TOKEN, launched
from diffusers import DiffusionPipeline
from hub_repositories import File
from huggingface_hub import ModelCard
from PIL import Image
from stand_in_hub import StandInHub
from stand_ins import make_diffusion
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor, pipeline

from models.gan import DenoisingUNet
from models.pipeline_denoiser import DenoiserPipeline
from triptych.pipelines.store import save_parts, save_pipeline
from triptych.publishing.cards import model_card

VAE = ROOT / "pretrained/vae-mnist-z2"


ELSEWHERE = """
import json, sys, warnings
sys.modules["models"] = sys.modules["triptych"] = None  # this process cannot import the repository
import numpy as np, torch
from huggingface_hub import hf_hub_download
torch.set_num_threads(1)
for source in json.loads(sys.argv[1]):
    exec(open("draw.py").read())
    name, _, revision = source.partition("@")
    try:
        from diffusers import DiffusionPipeline
        images = draw(DiffusionPipeline.from_pretrained(name, revision=revision or None, trust_remote_code=True))
        np.save(source.replace("/", "--") + ".npy", images)
        card = open(hf_hub_download(name, "README.md", revision=revision or None), encoding="utf-8").read()
        exec(card.split("```python\\n")[1].split("```")[0], {})
        print("LOADED", source)
    except Exception as error:
        print("FAILED", source, type(error).__name__, " ".join(str(error).split()))
"""
DRAW = '''
import numpy as np, torch
def draw(pipeline):
    """The same images of any of the three, whoever draws them."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    if "denoiser" in pipeline.components:
        noisy = torch.rand(3, 3, 20, 20, generator=generator)
        return np.stack([image.numpy() for image in pipeline(noisy, output_type="pt").images])
    if "vae" in pipeline.components:
        return pipeline(8, generator=generator, output_type="np").images
    return pipeline([0, 2], generator=generator, num_inference_steps=3, output_type="np").images
'''


@pytest.fixture
def elsewhere(client, tmp_path) -> Callable[..., tuple[str, Path]]:
    """Load by id in a process that knows nothing of this repository, with an empty cache, in another folder."""

    def load(hub: StandInHub, *sources: str, script: str = ELSEWHERE, token: str | None = None) -> tuple[str, Path]:
        folder = tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        (folder / "draw.py").write_text(DRAW)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "noisy.png")
        env = client(hub, token)
        env.pop("PYTHONPATH")
        command = [sys.executable, "-c", script, json.dumps(sources)]
        done = launched(command, folder, env)
        assert done.returncode == 0, done.stderr
        return done.stdout, folder

    return load


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> dict[str, Path]:
    """A saved pipeline of each of the three models."""
    folder = tmp_path_factory.mktemp("pipelines")
    torch.manual_seed(0)
    denoiser = DenoiserPipeline(DenoisingUNet(3, (8, 16), layers_per_block=1))
    diffusion = make_diffusion()
    diffusion.register_modules(guide=make_diffusion().unet)
    diffusion.register_to_config(guidance_interval=[0.3, 5.0])
    for name, pipe in (("diffusion", diffusion), ("denoiser", denoiser), ("unguided", make_diffusion())):
        save_pipeline(pipe, folder / name, model_card(type(pipe).__name__, name, {"seed": 0}))
    return {"vae": VAE} | {name: folder / name for name in ("diffusion", "denoiser", "unguided")}


def test_each_pipeline_is_loaded_by_its_id(hub, publish, elsewhere, pipelines):
    """Bit for bit what the local folder draws; the code in the card runs; and without the code it fails."""
    for name, folder in pipelines.items():
        done = publish(hub, folder, f"me/{name}")
        assert done.returncode == 0 and f"Published: {hub.endpoint}/me/{name}" in done.stdout, done.stderr
        held = hub.files(f"me/{name}")
        assert {path.suffix for path in map(Path, held)} == {".json", ".md", ".py", ".safetensors"}
    for name, left_out in CODE.items():
        repo = hub.copy("models", f"me/{name}", f"me/{name}-codeless")
        files = dict(repo.commits[repo.branches["main"]])
        del files[left_out]
        repo.commit(files, "without its code")
    sources = [f"me/{name}{end}" for name in pipelines for end in ("", "-codeless")]
    said, folder = elsewhere(hub, *sources)
    for name, path in pipelines.items():
        assert f"LOADED me/{name}\n" in said, said
        assert f"FAILED me/{name}-codeless" in said, said
        there = np.load(folder / f"me--{name}.npy")
        assert there.std() > 0.01 and np.array_equal(there, drawn_here(path)), name
    assert (folder / "restored.png").exists(), "what the denoiser's card does"


CODE = {"diffusion": "pipeline_class_conditional.py", "vae": "vae/vae.py", "denoiser": "denoiser/gan.py"}


def drawn_here(folder: Path) -> np.ndarray:
    names: dict = {}
    exec(DRAW, names)
    torch.set_num_threads(1)
    return names["draw"](DiffusionPipeline.from_pretrained(folder, trust_remote_code=True))


def test_what_nobody_could_load_is_refused(hub, publish, pipelines, tmp_path):
    for name, left_out in CODE.items():
        folder = shutil.copytree(pipelines[name], tmp_path / name)
        (folder / left_out).unlink()
        done = publish(hub, folder, f"me/{name}")
        assert done.returncode == 2 and f"lacks the pipeline's code ({left_out})" in done.stderr
    pickled = shutil.copytree(VAE, tmp_path / "pickled")
    (pickled / "vae/diffusion_pytorch_model.safetensors").rename(pickled / "vae/weights.bin")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("name: unfinished")
    for folder, repo_id, message in (
        (pickled, "me/vae", "pickled weights (vae/weights.bin)"),
        (unfinished, "me/vae", "not finished"),
        (tmp_path / "nothing", "me/vae", "holds nothing to publish"),
        (VAE / "vae", "me/vae", "holds a VAE; what can be published is ClassConditionalPipeline, "),
        (VAE, "vae", "The user is missing"),
        (VAE, "me/va e", "user/name"),
        (ROOT / "metrics/psnr", "me/ssim", "Call it .../psnr"),
    ):
        done = publish(hub, folder, repo_id)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert {method for method, _, _ in hub.asked} <= {"GET"} and not hub.repos


def test_a_dry_run_writes_one_folder_and_asks_nobody(hub, publish, tmp_path):
    before = {path: path.read_bytes() for path in VAE.rglob("*") if path.is_file()}
    done = publish(hub, VAE, "me/vae", "--dry_run", "true", "--dataset", "ylecun/mnist", token=None)
    assert done.returncode == 0 and not hub.asked, done.stderr
    folder = tmp_path / "runs/publish/me--vae"
    assert {path.name for path in tmp_path.iterdir()} == {"home_0", "runs"} and list(
        (tmp_path / "home_0").iterdir()
    ) == []
    assert {path: path.read_bytes() for path in VAE.rglob("*") if path.is_file()} == before
    assert {path.relative_to(folder) for path in folder.rglob("*")} == {
        path.relative_to(VAE) for path in VAE.rglob("*")
    }
    card = ModelCard.load(folder / "README.md")
    assert card.data.datasets == ["ylecun/mnist"] and 'from_pretrained("me/vae", ' in card.text
    assert "is not empty" in publish(hub, VAE, "me/vae", "--dry_run", "true").stderr
    assert publish(hub, VAE, "me/vae", "--dry_run", "true", "--overwrite", "true").returncode == 0


def test_private_branch_tag_and_message(hub, publish, elsewhere):
    flags = ["--private", "true", "--revision", "dev", "--tag", "v1", "--commit_message", "The first one"]
    for _ in range(2):  # repeated, it changes nothing
        done = publish(hub, VAE, "me/hidden", *flags)
        assert done.returncode == 0 and f"{hub.endpoint}/me/hidden/tree/dev" in done.stdout, done.stderr
    repo = hub.repos["models", "me/hidden"]
    assert repo.private and list(repo.messages.values()) == ["initial commit", "The first one"]
    assert not hub.files("me/hidden") and repo.tags == {"v1": repo.branches["dev"]}

    # Another model: not over these files, not under this tag, but on request and under another.
    other = ROOT / "pretrained/vae-mnist-z4"
    done = publish(hub, other, "me/hidden", *flags)
    assert done.returncode == 2 and "has a tag v1 already" in done.stderr
    done = publish(hub, other, "me/hidden", "--revision", "dev")
    assert done.returncode == 2 and "holds other files on dev: " in done.stderr
    assert "README.md" in done.stderr and "--overwrite" in done.stderr
    first = hub.files("me/hidden", "v1")
    done = publish(hub, other, "me/hidden", "--revision", "dev", "--tag", "v2", "--overwrite", "true")
    assert done.returncode == 0 and hub.files("me/hidden", "v1") == first != hub.files("me/hidden", "v2")

    said, folder = elsewhere(hub, "me/hidden@v1", token=TOKEN)
    assert "LOADED me/hidden@v1" in said, said  # and its card's code, which names the branch
    assert np.array_equal(np.load(folder / "me--hidden@v1.npy"), drawn_here(VAE))
    with pytest.raises(HTTPError, match="401"):
        urlopen(f"{hub.endpoint}/me/hidden/resolve/v1/README.md")
    hub.repos["models", "me/hidden"].private = False
    done = publish(hub, other, "me/hidden", *flags)
    assert done.returncode == 2 and "is public, and stays so" in done.stderr


def test_overwriting_replaces_the_whole(hub, publish):
    assert publish(hub, VAE, "me/vae").returncode == 0
    repo = hub.repos["models", "me/vae"]
    first = repo.branches["main"]
    repo.commit({**repo.commits[first], "NOTES.md": File(b"written on the Hub", False)}, "notes")
    done = publish(hub, VAE, "me/vae")
    assert done.returncode == 2 and "holds other files on main: NOTES.md." in done.stderr
    assert publish(hub, VAE, "me/vae", "--overwrite", "true").returncode == 0
    assert hub.files("me/vae") == hub.files("me/vae", first)


def test_an_interrupted_upload_is_repeated(hub, publish):
    """The client tries again where it can; where the whole command breaks off, it goes on where it stopped."""
    hub.faults["PUT /lfs/"] = hub.faults["POST /commit/"] = 1
    done = publish(hub, VAE, "me/vae")
    assert done.returncode == 2 and "me/vae was not published" in done.stderr and "run the command again" in done.stderr
    assert not hub.files("me/vae"), "in one commit or not at all"
    assert hub.count("PUT", "/lfs/") == 2, "the first was cut off"
    done = publish(hub, VAE, "me/vae")
    assert done.returncode == 0 and "vae/diffusion_pytorch_model.safetensors" in hub.files("me/vae")
    assert hub.count("PUT", "/lfs/") == 2, "what was there was not sent again"


def test_bad_metadata_are_refused_before_anything_is_made(hub, publish, tmp_path):
    folder = shutil.copytree(VAE, tmp_path / "vae")
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("license: apache-2.0", "license: whatever"))
    done = publish(hub, folder, "me/vae")
    assert done.returncode == 2 and "refuses README.md's metadata" in done.stderr and not hub.repos


JUDGING = """
import json, sys
sys.modules["models"] = sys.modules["triptych"] = None
import evaluate
from huggingface_hub import hf_hub_download
card = open(hf_hub_download("me/judge", "README.md"), encoding="utf-8").read()
names = {}
exec(card.split("```python\\n")[1].split("```")[0], names)
json.dump(names["classify"]("image.png"), open("answers.json", "w"))
psnr = evaluate.load("me/psnr")
print(psnr.compute(predictions=[[[[0.5]]]], references=[[[[0.25]]]])["psnr"])
"""


def test_the_judge_and_the_metrics(hub, publish, elsewhere, tmp_path):
    torch.manual_seed(0)
    names = {0: "cat", 1: "ship"}
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", id2label=names)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    judge = tmp_path / "judge"
    parts = [ResNetForImageClassification(config).eval(), processor]
    save_parts(parts, judge, model_card("ResNetForImageClassification", "judge", {"seed": 0}))
    done = publish(hub, judge, "me/judge")
    assert done.returncode == 0, done.stderr
    # Without large files the client's newer way of uploading, in which Xet is at home, can be taken too.
    done = publish(hub, ROOT / "metrics/psnr", "me/psnr", HF_HUB_DISABLE_XET="0")
    assert done.returncode == 0 and f"{hub.endpoint}/spaces/me/psnr" in done.stdout, done.stderr
    assert hub.repos["spaces", "me/psnr"].sdk == "static"
    files = hub.files("me/psnr", kind="spaces")
    assert files.keys() == {"README.md", "index.html", "psnr.py"} and b'evaluate.load("me/psnr")' in files["README.md"]

    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)).save(tmp_path / "elsewhere/image.png")
    said, folder = elsewhere(hub, script=JUDGING)
    assert float(said.splitlines()[-1]) == pytest.approx(10 * np.log10(16))
    answers = json.loads((folder / "answers.json").read_text())
    torch.set_num_threads(1)
    assert answers == pipeline("image-classification", model=str(judge))(str(folder / "image.png"))
