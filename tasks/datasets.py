"""Where data sets are, and how they get there: functions to find, download and verify one of `tasks.catalogue`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from leap.errors import LeapError, RunError, UsageError
from tasks.catalogue import DATASETS, Dataset, File, dataset
from tasks.downloads import Refused, bring
from tasks.integrity import GOOD, State, state, whole

__all__ = [
    "DATASETS", "Dataset", "File", "FileState", "Presence", "dataset", "fetch", "folder_of", "home", "how_to_get",
    "locate", "presence", "verify",
]  # fmt: skip


class FileState(NamedTuple):
    """What is in a file's place, as `tasks.integrity.state` tells it."""

    path: Path
    state: State


class Presence(NamedTuple):
    """How much of a data set is on this machine, at a glance."""

    state: Literal["present", "part", "missing", "by hand"]
    """`part`: some of its files, or a form of someone else's; `by hand`: nothing, and nothing can be downloaded."""
    files: int
    """How many of its files are there."""
    others: tuple[str, ...]
    """Names of what is there in a form of someone else's."""
    left: int | None
    """Bytes to download; None where they are not published."""


def home() -> Path:
    """The folder of all data sets: `$LEAP_DATA`, else `$XDG_DATA_HOME/leap`, else `~/.local/share/leap`."""
    if own := os.environ.get("LEAP_DATA"):
        return Path(own).expanduser()
    return _default_home()


def folder_of(name: str, folder: Path | None = None) -> Path:
    """The folder that is meant: the one given, or a data set's own in `home()`."""
    return home() / dataset(name).name if folder is None else folder.expanduser()


def locate(name: str) -> Path:
    """The folder of a data set that is on this machine.

    Raises:
        UsageError: the name is unknown, or its folder is not there.
    """
    folder = folder_of(name)
    if folder.is_dir():
        return folder
    own = os.environ.get("LEAP_DATA")
    looked = f"LEAP_DATA={own} has no folder {name}" if own else f"there is no {folder}, and LEAP_DATA is not set"
    raise UsageError(
        f"{name} is not on this machine: {looked}. Run `leap fetch {name}` (it goes to {folder}), or set LEAP_DATA to "
        f"a folder in which {name}/ holds {_list(dataset(name))}"
        + (f", or unset it to use {_default_home()}" if own else "")
    )


def fetch(name: str, folder: Path | None = None, progress: bool = True) -> Path:
    """Download what is missing of a data set, check it, and return its folder.

    What is already there and whole is left alone, other containers of the same files included; a damaged file is
    replaced. A file appears only when it is whole, and a download that broke off goes on where it stopped.

    Args:
        name: One of `DATASETS`.
        folder: Where the files go; `home() / name` where it is not given.
        progress: Show a bar for each file.

    Raises:
        UsageError: the name is unknown, the folder cannot be made or written to, or a person has to get the data set.
        RunError: a download failed or brought other bytes than the official ones.
    """
    found, folder = dataset(name), folder_of(name, folder)
    states = {state.path.name: state.state for state in verify(name, folder)}
    if not found.files and not any(kind in GOOD for kind in states.values()):
        raise UsageError(how_to_get(name, folder))
    for file in found.files:
        if states[file.name] not in GOOD:
            _download(found, file, folder, progress)
    return folder


def verify(name: str, folder: Path | None = None) -> list[FileState]:
    """What is there of a data set: its files, then what is there in a form of someone else's.

    Reads every byte of files, looks into folders whether they are empty, and changes nothing.
    """
    found, folder = dataset(name), folder_of(name, folder)
    own = [FileState(folder / file.name, state(folder / file.name, file.md5)) for file in found.files]
    return own + [FileState(path, _state_of_other(path)) for path in _others(found, folder)]


def presence(name: str, folder: Path | None = None) -> Presence:
    """How much of a data set is there, without reading files that have the official size."""
    found, folder = dataset(name), folder_of(name, folder)
    absent = [file for file in found.files if not _seems_there(folder / file.name, file)]
    count = len(found.files) - len(absent)
    others = tuple(path.name for path in _others(found, folder))
    kind: Literal["present", "part", "missing", "by hand"]
    if found.files:
        kind = "present" if not absent else "part" if count or others else "missing"
    else:
        kind = "present" if others else "by hand"
    sizes = [file.size for file in absent]
    return Presence(kind, count, others, None if None in sizes else sum(size or 0 for size in sizes))


def how_to_get(name: str, folder: Path | None = None) -> str:
    """What a person does to get a data set that cannot be downloaded."""
    found = dataset(name)
    return (
        f"{name} cannot be downloaded: {found.by_hand}. Get it from {found.home} (terms: {found.licence}) and put "
        f"{found.put} into {folder_of(name, folder)}"
    )


def _others(found: Dataset, folder: Path) -> list[Path]:
    official = {file.name for file in found.files}
    paths = {path for pattern in found.others for path in folder.glob(pattern)}
    return sorted(path for path in paths if path.name not in official and not path.name.startswith("."))


def _state_of_other(path: Path) -> State:
    good = any(path.iterdir()) if path.is_dir() else whole(path, path.suffix)
    return "other" if good else "damaged"


def _seems_there(path: Path, file: File) -> bool:
    if path.is_file() and path.stat().st_size == file.size:
        return True
    return state(path, file.md5) in GOOD


def _download(found: Dataset, file: File, folder: Path, progress: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make folder {folder}: {error.strerror}; name another, or set LEAP_DATA") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}; name another folder, or set LEAP_DATA")
    try:
        bring(file, folder, progress)
    except Refused as error:
        raise _failed(found, file, folder, str(error)) from error
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"cannot write {folder / file.name}: {reason}; see to space and permissions there. What came is kept, and "
            f"leap fetch {found.name} goes on from it"
        ) from error


def _failed(found: Dataset, file: File, folder: Path, why: str) -> LeapError:
    return RunError(
        f"{file.name} did not come from {why}. Try again later (a download that broke off goes on where it stopped), "
        f"or get {_list(found)} from {found.home} by other means and put them in {folder} (or in a folder "
        f"{found.name}/ anywhere, and set LEAP_DATA to the one it is in)"
    )


def _default_home() -> Path:
    if shared := os.environ.get("XDG_DATA_HOME"):
        return Path(shared).expanduser() / "leap"
    return Path(os.path.expanduser("~"), ".local", "share", "leap")


def _list(found: Dataset) -> str:
    return " and ".join(file.name for file in found.files) or found.put
