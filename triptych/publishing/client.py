"""The Hugging Face Hub: who may write where, and a folder put there whole.

The token is the client's affair (``hf auth login``, or HF_TOKEN): it is read by huggingface_hub alone, and taken out
of every message that is passed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, RepoCard, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from triptych.errors import UserError

MAIN = "main"


@contextmanager
def explained(repo_id: str, what: str) -> Iterator[None]:
    """Turn whatever the client raises into a UserError that says what to do, and never the token."""
    try:
        yield
    except (UserError, AttributeError, KeyError, TypeError):  # errors of ours say enough
        raise
    except LocalTokenNotFoundError:
        message = "there is no token. Log in with `hf auth login`, or set HF_TOKEN to one that may write"
    except OfflineModeIsEnabled:
        message = "HF_HUB_OFFLINE is set, and this needs the Hub. Unset it"
    except Exception as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        said = without_token(" ".join(str(error).split()))[:400].rstrip(".")
        mends = {
            401: "The token is not valid (any more): log in with `hf auth login`, or set HF_TOKEN to a new one",
            403: f"The token may not write to {repo_id}: give one that may (https://huggingface.co/settings/tokens)",
        }
        again = "Check the network and run the command again: what is there already is not sent twice"
        message = f"{type(error).__name__}: {said}. {mends.get(status, again)}"
    else:
        return
    # without its cause, which may hold the token
    raise UserError(f"{repo_id} {what}: {message}. Nothing on this machine was changed.") from None


def without_token(text: str) -> str:
    """`text` with the token in use, if it occurs there, replaced."""
    token = get_token()
    for secret in (token, token and repr(token)[1:-1]):
        text = text.replace(secret, "<token>") if secret else text
    return text


def refuse_unless_writable(repo_id: str, repo_type: str = "model", private: bool = False) -> bool:
    """Whether the repository exists; nothing is made or changed.

    Raises:
        UserError: no token, one that may not write there, a name that can't be, no Hub, or a public repository where
            a private one was asked for.
    """
    with explained(repo_id, "cannot be written to"):
        api = HfApi()
        me = api.whoami()
        refuse_read_only(me, repo_id)
        try:
            existing = api.repo_info(repo_id, repo_type=repo_type)
        except RepositoryNotFoundError:
            existing = None
        if existing is not None:
            api.auth_check(repo_id, repo_type=repo_type, write=True)
            refuse_public(existing, repo_id, private)
            return True
        owner = repo_id.split("/")[0]
        owners = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
        if owner not in owners:
            raise UserError(
                f"{repo_id} cannot be made: you are {me['name']} on the Hub, who may write to {', '.join(owners)}. "
                f"Choose another name, or log in as {owner}."
            )
        return False


def refuse_unless_free(repo_id: str, private: bool = False) -> None:
    """For a model that is still to be trained: its repository must be writable, and new or empty.

    Raises:
        UserError: see :func:`refuse_unless_writable`; or there are files in it.
    """
    if refuse_unless_writable(repo_id, private=private):
        with explained(repo_id, "cannot be written to"):
            held = [path for path in HfApi().list_repo_files(repo_id) if path != ".gitattributes"]
        if held:
            raise UserError(
                f"{repo_id} holds a model already. Choose another run.push_to, or leave it out, and publish the "
                f"finished run with scripts/publish.py --overwrite."
            )


def refuse_read_only(me: dict[str, Any], repo_id: str) -> None:
    """Raise a UserError where the token itself, whoever it belongs to, cannot write to `repo_id`."""
    token = (me.get("auth") or {}).get("accessToken") or {}
    scopes = (token.get("fineGrained") or {}).get("scoped")
    allowed = [s["entity"].get("name") for s in scopes or [] if "repo.write" in s.get("permissions", [])]
    narrow = token.get("role") == "fineGrained" and scopes is not None
    if token.get("role") == "read" or (narrow and not {repo_id, repo_id.split("/")[0]} & set(allowed)):
        raise UserError(
            f"{repo_id} cannot be written to: the token in use ({token.get('displayName', 'unnamed')}) may only read. "
            f"Make one that may write at https://huggingface.co/settings/tokens, and `hf auth login` with it."
        )


def refuse_public(info: Any, repo_id: str, private: bool) -> None:
    """Raise a UserError where a private repository was asked for, and an existing one is public."""
    if private and not info.private:
        raise UserError(
            f"{repo_id} exists and is public, and stays so: --private makes new repositories private. Change it in its "
            f"settings on the Hub, or choose another name."
        )


def upload(
    folder: Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    message: str | None = None,
    overwrite: bool = False,
) -> str:
    """Make the repository hold exactly what `folder` holds, in one commit; repeated, it goes on where it stopped.

    Args:
        folder: what to upload, a README.md with the card's metadata among it.
        repo_id: "user/name"; made if it doesn't exist.
        repo_type: "model" or "space".
        private: make it a private one.
        revision: a branch, made from main if it doesn't exist; main if not given.
        tag: a name for the commit, which must not mean another one.
        message: of the commit.
        overwrite: replace what the repository holds there; its history keeps it.

    Returns:
        The address of what was published.

    Raises:
        UserError: the card's metadata are not valid; other files are there, or another commit has the tag; the
            repository is public where a private one was asked for; it may not be written to, or the upload was
            interrupted.
    """
    branch = revision or MAIN
    with explained(repo_id, "was not published"):
        try:
            RepoCard.load(folder / "README.md").validate(repo_type)
        except ValueError as error:
            raise UserError(f"{repo_id} was not published; the Hub refuses README.md's metadata: {error}") from None
        api = HfApi()
        where = {"repo_id": repo_id, "repo_type": repo_type}
        sdk = {"space_sdk": "static"} if repo_type == "space" else {}
        api.create_repo(**where, private=private or None, exist_ok=True, **sdk)
        refuse_public(api.repo_info(**where), repo_id, private)
        refs = api.list_repo_refs(**where)
        heads = {ref.name: ref.target_commit for ref in refs.branches}
        if tag is not None and tag in {ref.name for ref in refs.tags} and differing(api, where, folder, tag):
            raise UserError(
                f"{repo_id} has a tag {tag} already, of other files, and a tag stays where it is. Choose another --tag."
            )
        fresh = branch != MAIN and heads.get(branch, heads[MAIN]) == heads[MAIN]  # a new branch begins as main is
        if branch not in heads:
            api.create_branch(**where, branch=branch)
        others = differing(api, where, folder, branch)
        if others and not (overwrite or fresh):
            examples = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            raise UserError(
                f"{repo_id} holds other files on {branch}: {examples}. Choose another repository or --revision, or say "
                f"--overwrite to publish.py; its history keeps them."
            )
        commit = api.upload_folder(
            **where,
            folder_path=folder,
            revision=branch,
            commit_message=message or f"Publish {repo_id.split('/')[1]}",
            delete_patterns="*" if others else None,
        )
        if tag is not None:
            api.create_tag(**where, tag=tag, revision=commit.oid, exist_ok=True)
        prefix = "spaces/" if repo_type == "space" else ""
        return f"{api.endpoint}/{prefix}{repo_id}" + (f"/tree/{branch}" if branch != MAIN else "")


def differing(api: HfApi, where: dict[str, str], folder: Path, revision: str) -> list[str]:
    """Files of the repository, but for .gitattributes, that `folder` lacks or has otherwise."""
    found = api.verify_repo_checksums(**where, revision=revision, local_dir=folder)
    differ = [*found.missing_paths, *(each["path"] for each in found.mismatches)]
    return [path for path in differ if path != ".gitattributes"]


def refuse_bad_name(repo_id: str) -> None:
    """Raise a UserError where `repo_id` is no "user/name" that the Hub could have."""
    try:
        validate_repo_id(repo_id)
        if "/" not in repo_id:
            raise HFValidationError("The user is missing.")
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} must be the name of a repository, user/name. {error}") from None
