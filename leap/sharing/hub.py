"""Uploading an exported folder through huggingface_hub, which is imported here and only when it is asked for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leap.errors import RunError, UsageError
from leap.sharing.folder import NAMES

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,94}/[A-Za-z0-9][\w.-]{0,94}", re.ASCII)


def library() -> Any:
    """huggingface_hub.

    Raises:
        UsageError: it is not installed.
    """
    try:
        huggingface_hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError(
            "--upload needs huggingface_hub, which is not installed here: pip install 'metaleap[hub]'; "
            "without --upload the folder is written all the same"
        ) from error
    return huggingface_hub


def check_name(name: str) -> str:
    """The name of a repository.

    Raises:
        UsageError: it is not USER/NAME.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".", "-", ".git")):
        raise UsageError(f"--upload needs USER/NAME of letters, digits, '-', '_' and '.', got {name!r}")
    return name


def upload(folder: Path, name: str, *, public: bool, say: Callable[[str], None]) -> str:
    """Upload an exported folder to a model repository, which is made where there is none; its address.

    The account is the one that huggingface_hub is logged in with. A repository that is public already is not written to
    unless `public` says so.

    Args:
        folder: What `leap export` wrote; nothing but the files of an export is sent.
        name: USER/NAME.
        public: Make the repository public, if it is made, and accept that it is.
        say: Takes the one line that tells what is sent where.

    Raises:
        UsageError: the repository is public, and `public` is not set.
        RunError: the upload failed; the folder stays.
    """
    hub = library()
    files = sorted(path for path in folder.iterdir() if path.name in NAMES)
    try:
        api = hub.HfApi()
        api.create_repo(repo_id=name, repo_type="model", private=not public, exist_ok=True)
        private = bool(api.repo_info(repo_id=name, repo_type="model").private)
        if not private and not public:
            raise UsageError(f"{name} is public, so anyone would see the upload; add --public, or choose another name")
        size = sum(path.stat().st_size for path in files)
        seen = "private" if private else "public"
        say(f"uploading {len(files)} files, {size / 1e6:.1f} MB, of {folder} to {name} ({seen})")
        api.upload_folder(
            repo_id=name, repo_type="model", folder_path=str(folder), allow_patterns=list(NAMES),
            commit_message="Upload of leap export",
        )  # fmt: skip
    except UsageError:
        raise
    except Exception as error:  # of whatever kind: its own, of requests or httpx, of the disk
        what = " ".join(str(error).split())[:300]
        raise RunError(
            f"the upload to {name} failed ({type(error).__name__}: {what}); {folder} is whole. "
            "Log in with `hf auth login`, check the name, and run the command again"
        ) from error
    return f"https://huggingface.co/{name}"
