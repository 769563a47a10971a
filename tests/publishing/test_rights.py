"""Rights on the Hub: without them nothing begins."""

from __future__ import annotations

import pytest
from conftest import ROOT, TOKEN
from hub_repositories import File, Repo

VAE = ROOT / "pretrained/vae-mnist-z2"


def fine_grained(name: str) -> dict:
    scope = {"entity": {"type": "model", "name": name}, "permissions": ["repo.content.read", "repo.write"]}
    return {"role": "fineGrained", "fineGrained": {"global": [], "scoped": [scope]}}


@pytest.mark.parametrize(
    ("token", "repo_id", "variables", "message"),
    [
        (None, "me/vae", {}, "there is no token. Log in with `hf auth login`"),
        ("hf_NobodysToken", "me/vae", {}, "The token is not valid"),
        ("hf_NoHeaderÉ", "me/vae", {}, "cannot be written to"),
        ("hf_ReadersToken", "reader/vae", {}, "(reader's) may only read"),
        ("hf_OtherScope", "narrow/vae", {}, "may only read"),
        (TOKEN, "you/vae", {}, "you are me on the Hub, who may write to me, lab"),
        (TOKEN, "you/theirs", {}, "(you sent Bearer <token>)"),
        (TOKEN, "me/vae", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (TOKEN, "me/vae", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "Check the network"),
    ],
    ids=["none", "unknown", "illegal", "read", "scope", "owner", "theirs", "offline", "no hub"],
)
def test_without_rights_nothing_begins(hub, publish, token, repo_id, variables, message):
    hub.add_user("reader", "hf_ReadersToken", role="read")
    hub.add_user("narrow", "hf_OtherScope", **fine_grained("narrow/another"))
    hub.repos["models", "you/theirs"] = Repo(private=False)
    hub.repos["models", "you/theirs"].commit({"README.md": File(b"theirs", False)}, "theirs")
    done = publish(hub, VAE, repo_id, token=token, **variables)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert {method for method, _, _ in hub.asked} <= {"GET"}
    assert list(hub.repos) == [("models", "you/theirs")] and hub.files("you/theirs") == {"README.md": b"theirs"}


def test_rights_that_suffice(hub, publish):
    hub.add_user("narrow", "hf_RightScope", **fine_grained("narrow/vae"))
    assert publish(hub, VAE, "narrow/vae", token="hf_RightScope").returncode == 0
    assert publish(hub, VAE, "lab/vae").returncode == 0, "an organisation's"
