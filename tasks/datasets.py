"""Where data sets are, and how they get there: a table of them, and functions to find, download and verify one."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from leap.errors import LeapError, RunError, UsageError

TIMEOUT = 30
"""Seconds without an answer after which a download is given up."""


@dataclass(frozen=True)
class File:
    """A file of a data set as its authors distribute it."""

    name: str
    url: str
    md5: str
    """The published checksum; it guards against damage, not against malice."""


@dataclass(frozen=True)
class Dataset:
    """A data set that `fetch` knows; `name` is the folder it is kept in."""

    name: str
    title: str
    files: tuple[File, ...]
    licence: str
    home: str


_OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"

DATASETS: dict[str, Dataset] = {
    row.name: row
    for row in (
        Dataset(
            "omniglot",
            "Omniglot: 1,623 characters of 50 alphabets",
            (
                File(
                    "images_background.zip",
                    f"{_OMNIGLOT}/images_background.zip",
                    "68d2efa1b9178cc56df9314c21c6e718",
                ),
                File(
                    "images_evaluation.zip",
                    f"{_OMNIGLOT}/images_evaluation.zip",
                    "6b91aef0f799c5bb55b94e3f2daec811",
                ),
            ),
            "MIT (c) 2015 Brenden Lake",
            "https://github.com/brendenlake/omniglot",
        ),
    )
}
"""Data sets by name; another one joins with a row."""


class FileState(NamedTuple):
    """What is in a file's place: the official bytes, another readable container, something unreadable, or nothing."""

    path: Path
    state: Literal["official", "other", "damaged", "missing"]


def dataset(name: str) -> Dataset:
    """A data set by name.

    Raises:
        UsageError: there is none of that name; the message says the nearest.

    Example:
        >>> dataset("omniglot").licence
        'MIT (c) 2015 Brenden Lake'
    """
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no data set {name!r}; {hint}Known: {', '.join(sorted(DATASETS))}")


def home() -> Path:
    """The folder of all data sets: `$LEAP_DATA`, else `$XDG_DATA_HOME/leap`, else `~/.local/share/leap`."""
    if own := os.environ.get("LEAP_DATA"):
        return Path(own).expanduser()
    return _default_home()


def locate(name: str) -> Path:
    """The folder of a data set that is on this machine.

    Raises:
        UsageError: the name is unknown, or its folder is not there.
    """
    folder = home() / dataset(name).name
    if folder.is_dir():
        return folder
    own = os.environ.get("LEAP_DATA")
    looked = f"LEAP_DATA={own} has no folder {name}" if own else f"there is no {folder}, and LEAP_DATA is not set"
    raise UsageError(
        f"{name} is not on this machine: {looked}. Run `leap fetch {name}` (it goes to {folder}), or set LEAP_DATA to "
        f"a folder in which {name}/ holds {_list(name)}" + (f", or unset it to use {_default_home()}" if own else "")
    )


def fetch(name: str, folder: Path | None = None, progress: bool = True) -> Path:
    """Download what is missing of a data set, check it, and return its folder.

    What is already there and whole is left alone, other containers of the same files included; a damaged file is
    replaced. A file appears only when it is whole.

    Args:
        name: One of `DATASETS`.
        folder: Where the files go; `home() / name` where it is not given.
        progress: Show a bar for each file.

    Raises:
        UsageError: the name is unknown, or the folder cannot be made or written to.
        RunError: a download failed or brought other bytes than the official ones.
    """
    found = dataset(name)
    folder = home() / name if folder is None else folder.expanduser()
    states = {state.path.name: state.state for state in verify(name, folder)}
    for file in found.files:
        if states[file.name] not in ("official", "other"):
            _download(found, file, folder, progress)
    return folder


def verify(name: str, folder: Path | None = None) -> list[FileState]:
    """What is there of a data set, file by file; reads every byte and changes nothing."""
    folder = home() / dataset(name).name if folder is None else folder.expanduser()
    return [FileState(folder / file.name, _state(folder / file.name, file.md5)) for file in dataset(name).files]


def _state(path: Path, md5: str) -> Literal["official", "other", "damaged", "missing"]:
    if not path.is_file():
        return "missing"
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5:
                return "official"
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return "damaged" if archive.testzip() else "other"
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error):
        return "damaged"
    return "damaged"


def _download(found: Dataset, file: File, folder: Path, progress: bool) -> None:
    import pooch  # type: ignore[import-untyped]
    from requests import RequestException

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make folder {folder}: {error.strerror}; name another, or set LEAP_DATA") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}; name another folder, or set LEAP_DATA")
    # pooch tells every download on stderr, which a progress bar does better.
    pooch.get_logger().setLevel(logging.WARNING)
    get = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    try:
        # pooch writes beside the file, checks, and moves into place.
        pooch.retrieve(file.url, f"md5:{file.md5}", fname=file.name, path=folder, downloader=get)
    except RequestException as error:
        raise _failed(found, file, folder, f"the download failed ({_root(error)})") from error
    except ValueError as error:
        raise _failed(found, file, folder, "what came is not the official file (its md5 differs)") from error
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"cannot write {folder / file.name}: {reason}; see to space and permissions there") from error


def _failed(found: Dataset, file: File, folder: Path, why: str) -> LeapError:
    return RunError(
        f"{file.name} from {file.url}: {why}. Try again later, or get {_list(found.name)} from {found.home} by other "
        f"means and put them in {folder} (or in a folder {found.name}/ anywhere, and set LEAP_DATA to the one it is in)"
    )


def _root(error: BaseException) -> str:
    """The innermost cause in one line: requests wraps 'connection refused' in four others."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _default_home() -> Path:
    if shared := os.environ.get("XDG_DATA_HOME"):
        return Path(shared).expanduser() / "leap"
    return Path(os.path.expanduser("~"), ".local", "share", "leap")


def _list(name: str) -> str:
    return " and ".join(file.name for file in DATASETS[name].files)
