"""Uploading an export to a model hub. The token is the user's own, from HF_TOKEN or their login."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from safepref.errors import InputError


def check_repo_id(repo_id: str) -> None:
    """Whether a hub id is one, before anything is written for it.

    Raises:
        InputError: it is not; with the hub's own rule.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"--push {repo_id}: {_line(error)}") from error


def push(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a folder to a model repository, which is made where there is none; returns its address.

    Raises:
        InputError: no token, no hub, or a hub that says no; the folder stays.
    """
    kept = f"the export stays in {folder}"
    token = get_token()
    if token is None:
        raise InputError(f"--push {repo_id}: no token; run `hf auth login` or set HF_TOKEN ({kept})")
    api = HfApi(token=token)
    try:
        repository = api.create_repo(repo_id, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id, folder_path=folder, commit_message="Export from safepref"
        )
    except Exception as error:  # the library raises a different kind for each way a hub can fail
        reason = _line(error).replace(token, "(token)")
        raise InputError(f"--push {repo_id}: not uploaded to {api.endpoint} ({reason}); {kept}") from error
    return str(repository)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
