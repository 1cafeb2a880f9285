"""Files in a folder, a zip or a tar, read in place: nothing is unpacked to disk, and no name in an archive is a path.

An archive may come from anywhere. Names that point out of it, links, devices and whatever could take more memory or
time than a data set needs are refused before they are read.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from leap.errors import UsageError
from tasks.image_files import LARGEST, PACKINGS, PIECE, UNREADABLE, Readable, bad, read_most, unread

MOST_FILES = 1 << 19
"""Files that an archive or a folder may have."""
ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
"""How the names of archives end."""

_HIDDEN = "__MACOSX"  # beside names that begin with a dot: what systems leave in archives
_GZIP = b"\x1f\x8b"
_UNPACKED = "unpack it and keep the folder instead"


def names(path: Path) -> list[str]:
    """Names of the files in a folder or an archive, sorted, with `/` between folders; hidden ones are left out.

    Raises:
        UsageError: the archive is missing or damaged, is larger than `tasks.image_files.LARGEST` once unpacked, has
            more than `MOST_FILES` entries, or has one that leads out of it, is a link or a device, or is there twice.
    """
    found = [name for name, _ in _walk(path, None, LARGEST)]
    if len(set(found)) < len(found):
        raise bad(path, f"holds {Counter(found).most_common(1)[0][0]!r} twice")
    return sorted(found)


def contents(path: Path, wanted: Collection[str], largest: int) -> Iterator[tuple[str, bytes | bytearray]]:
    """Name and content of the files wanted, in the order in which they are stored, one in memory at a time.

    Args:
        path: A folder or an archive.
        wanted: Of `names`.
        largest: Bytes that a file may have.

    Raises:
        UsageError: as `names`; or a file is damaged or too large.
    """
    return _walk(path, wanted, largest)


def _walk(path: Path, wanted: Collection[str] | None, largest: int) -> Iterator[tuple[str, bytes | bytearray]]:
    """Names and contents; with `wanted` None, names alone."""
    walk = _in_folder if path.is_dir() else _in_zip if _is_zip(path) else _in_tar
    try:
        yield from walk(path, wanted, largest)
    except (*UNREADABLE, tarfile.TarError) as error:
        raise unread(path, error) from error


def _is_zip(path: Path) -> bool:
    return path.name.lower().endswith(".zip")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == _HIDDEN for part in name.split("/"))


def _plain(path: Path, name: str) -> str:
    """The name of an entry, once it is known to stay inside the archive."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or parts[0][1:2] == ":" or "\0" in name:
        raise UsageError(f"{path} has an entry {name!r}, a name that leads out of the archive; do not trust this file")
    return "/".join(part for part in parts if part not in ("", "."))


def _check_count(path: Path, count: int) -> None:
    if count > MOST_FILES:
        raise bad(path, f"has more than {MOST_FILES} entries")


def _check_size(path: Path, name: str, size: int, largest: int) -> None:
    if not 0 <= size <= largest:
        raise bad(path, f"has {name!r} with {size} bytes, at most {largest} are read")


def _exactly(file: Readable, size: int, name: str) -> bytearray:
    content = read_most(file, size)
    if len(content) != size:
        raise ValueError(f"{name} ends after {len(content)} of {size} bytes")
    return content


# Folders


def _in_folder(path: Path, wanted: Collection[str] | None, largest: int) -> Iterator[tuple[str, bytes | bytearray]]:
    if wanted is None:
        yield from ((name, b"") for name in _listed(path))
        return
    for name in sorted(wanted):
        with _open_plain(path / name) as file:
            _check_size(path, name, os.fstat(file.fileno()).st_size, largest)
            yield name, read_most(file, largest)


def _listed(path: Path) -> Iterator[str]:
    root, count = path.resolve(), 0
    for folder, inside, files in os.walk(path, onerror=_raise):
        inside[:] = sorted(name for name in inside if not _hidden(name))
        for name in inside:
            if (link := Path(folder, name)).is_symlink():
                raise UsageError(f"{link} is a link to a folder, which may lead anywhere; put the folder in its place")
        for name in sorted(name for name in files if not _hidden(name)):
            count += 1
            _check_count(path, count)
            _check_inside(Path(folder, name), root)
            yield Path(folder, name).relative_to(path).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _check_inside(file: Path, root: Path) -> None:
    if file.is_symlink() and not file.resolve().is_relative_to(root):
        raise UsageError(f"{file} is a link to {file.resolve()}, outside {root}; put the file itself in its place")


def _open_plain(path: Path) -> BinaryIO:
    # Without waiting: a pipe in a picture's place would keep an ordinary open forever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise bad(path, "is no plain file")
    return file


# Zips


def _in_zip(path: Path, wanted: Collection[str] | None, largest: int) -> Iterator[tuple[str, bytes | bytearray]]:
    with zipfile.ZipFile(path) as archive:
        _check_count(path, len(archive.infolist()))
        entries = [(_plain(path, info.orig_filename), info) for info in archive.infolist()]
        for name, info in entries:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UsageError(f"{path} has an entry {name!r} that is a link or a device; do not trust this file")
        files = [(n, i) for n, i in entries if not i.is_dir() and not _hidden(n) and (wanted is None or n in wanted)]
        if (total := sum(info.file_size for _, info in files)) > LARGEST:
            raise UsageError(f"{path} holds {total} bytes, at most {LARGEST} are read from an archive; {_UNPACKED}")
        for name, info in files:
            yield name, b"" if wanted is None else _unzip(path, archive, info, largest)


def _unzip(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, largest: int) -> bytearray:
    _check_size(path, info.filename, info.file_size, largest)
    if info.compress_type not in PACKINGS:
        raise bad(path, f"packs {info.filename!r} by method {info.compress_type}; stored and deflated are read")
    with archive.open(info) as file:
        content = _exactly(file, info.file_size, info.filename)
        file.read(1)  # the checksum is compared at the end
    return content


# Tars


class _Forward:
    """A stream for tarfile that only goes on: no archive of real files needs to go back, and one that does may loop."""

    def __init__(self, file: gzip.GzipFile | BinaryIO) -> None:
        self.file = file

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, position: int) -> int:
        if position < self.tell():
            raise ValueError("entries that overlap")
        self._check(position)
        return self.file.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PIECE:  # headers are small, and contents are read in pieces
            raise ValueError(f"a header of {size} bytes")
        content = self.file.read(size)
        self._check(self.tell())
        return content

    def _check(self, position: int) -> None:
        if position > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST} bytes; {_UNPACKED}")


def _in_tar(path: Path, wanted: Collection[str] | None, largest: int) -> Iterator[tuple[str, bytes | bytearray]]:
    with path.open("rb") as raw:
        stream = _Forward(gzip.GzipFile(fileobj=raw) if _is_gzip(raw) else raw)
        with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive, 1):
                _check_count(path, count)
                name = _plain(path, member.name)
                if not (member.isdir() or member.isreg()) or member.issparse() or member.size < 0:
                    raise UsageError(f"{path} has an entry {name!r} that is no plain file; do not trust this file")
                if member.isreg() and not _hidden(name) and (wanted is None or name in wanted):
                    yield name, b"" if wanted is None else _untar(path, archive, member, largest)
        _check_rest(stream)


def _is_gzip(raw: BinaryIO) -> bool:
    magic = raw.read(2)
    raw.seek(0)
    return magic == _GZIP


def _untar(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, largest: int) -> bytearray:
    _check_size(path, member.name, member.size, largest)
    file = archive.extractfile(member)
    assert file is not None  # it is a plain file
    return _exactly(file, member.size, member.name)


def _check_rest(stream: _Forward) -> None:
    """Behind the last entry there are zeros alone: tarfile takes a damaged header for the end. Also the checksum."""
    while rest := stream.read(PIECE):
        if rest.count(0) != len(rest):
            raise ValueError("what follows the last readable entry is no end of an archive")
