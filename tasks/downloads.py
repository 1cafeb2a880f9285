"""Downloads that go on where they stopped: a file comes into `NAME.part` and gets its name once it is whole."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.catalogue import File
from tasks.integrity import GOOD, digest, state, whole

if TYPE_CHECKING:
    from requests import RequestException, Response

TIMEOUT = 30
"""Seconds without an answer after which a connection is given up."""
TRIES = 4
"""How often an address is asked for a file in one go; every time but the first goes on where the last one broke off."""
PAUSE = 1.0
"""Seconds between two tries at one address."""
LIMIT = 64 << 20
"""Bytes that a file of unknown size may have."""
RECORD = "SHA256SUMS"
"""Where the checksum of a file is kept that was published without one; `sha256sum -c` reads it."""

PIECE = 1 << 14
"""Bytes that are taken at once. A piece that is cut short is lost, so it is small."""


class Refused(Exception):
    """No address gave the file; the message says why, address by address."""


class _Again(Exception):
    """The same address may well give the rest, or all, of the file when it is asked once more."""


def bring(file: File, folder: Path, progress: bool = False) -> Path:
    """Download a file into a folder that exists, and return its path.

    What an earlier download left in `NAME.part` is kept, and only the rest is asked for; a server that cannot serve a
    part starts over. Nothing appears under the file's name before it has the official size and checksum, and what
    was there stays until then. Of several processes one downloads; the others wait for it.

    Args:
        file: Its addresses are tried in order.
        folder: Where the file goes.
        progress: Show a bar.

    Raises:
        Refused: no address gave it. What came is kept for the next time, unless it was wrong.
        OSError: it cannot be written here.
    """
    place = folder / file.name
    with _held(folder / f"{file.name}.part", progress) as part:
        if state(place, file.md5) in GOOD:  # another process has brought it meanwhile
            return place
        _check_space(part, file)
        refusals = []
        for url in file.urls:
            try:
                _fill(part, file, url, progress)
            except Refused as why:
                refusals.append(f"{url}: {why}")
            else:
                os.fsync(part.fileno())
                os.replace(part.name, place)
                if file.md5 is None:
                    _record(place)
                return place
    raise Refused("; ".join(refusals))


@contextmanager
def _held(path: Path, progress: bool) -> Iterator[BufferedRandom]:
    """The file at `path`, opened for appending and for this process alone; removed at the end if it is empty."""
    while True:
        with path.open("a+b") as part:
            _lock(part, progress)
            if not _is_at(part, path):
                continue  # whoever held it before has renamed or removed it
            try:
                yield part
            finally:
                if _size(part) == 0:
                    path.unlink(missing_ok=True)
            return


def _lock(part: BufferedRandom, progress: bool) -> None:
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if progress:
            print(f"{part.name}: another process is downloading it; waiting", file=sys.stderr)
        fcntl.flock(part, fcntl.LOCK_EX)
    except OSError:
        # Some network disks know no locks. Two downloads then mix their bytes, which the checksum does not let pass.
        pass


def _is_at(part: BufferedRandom, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(part.fileno()))
    except FileNotFoundError:
        return False


def _size(part: BufferedRandom) -> int:
    return os.fstat(part.fileno()).st_size


def _check_space(part: BufferedRandom, file: File) -> None:
    needed, free = (file.size or 0) - _size(part), shutil.disk_usage(Path(part.name).parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")


def _fill(part: BufferedRandom, file: File, url: str, progress: bool) -> None:
    """Get the rest of the file from one address, and check the whole."""
    why = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE)
        resumed = _size(part) > 0
        try:
            _receive(part, file, url, progress)
        except _Again as error:
            why = str(error)
            continue
        wrong = _what_is_wrong(part, file)
        if wrong is None:
            return
        part.truncate(0)
        if not resumed:
            raise Refused(wrong)
        why = wrong  # what was there already may be of another version; all of it is asked for
    raise Refused(why)


def _receive(part: BufferedRandom, file: File, url: str, progress: bool) -> None:
    """Append what is missing, or all from the start where the server cannot do otherwise."""
    import requests
    from tqdm import tqdm

    have = _size(part)
    if file.size is not None and have >= file.size:
        return
    # A server that packs what it sends, or unpacks it, would change the bytes that the checksum is of.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise Refused(_explain(error)) from error
    with response:
        have, total = _start(response, part, file)
        response.raw.headers.pop("Content-Encoding", None)  # some call every .gz encoded, and requests would unpack it
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=file.name, disable=not progress)
        try:
            with bar:
                for piece in response.iter_content(PIECE):
                    if (have := have + len(piece)) > (total or LIMIT):
                        part.truncate(0)
                        raise Refused(f"more than {total or LIMIT:,} bytes came")
                    part.write(piece)
                    part.flush()  # so that an interrupted download keeps all that came
                    bar.update(len(piece))
        except requests.RequestException as error:
            raise _Again(f"the connection broke off after {have:,} bytes ({_root(error)})") from error
    if total is not None and have < total:
        raise _Again(f"the connection broke off after {have:,} of {total:,} bytes")


def _start(response: Response, part: BufferedRandom, file: File) -> tuple[int, int | None]:
    """How many bytes are there when the answer's first one comes, and how many there are in all."""
    have, code = _size(part), response.status_code
    if have and code == 206:
        matched = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if matched and int(matched[1]) == have:
            return have, _fits(int(matched[2]), file)
    if have and code in (206, 416):  # another piece than was asked for, or no bytes beyond those that are here
        part.truncate(0)
        raise _Again("the server did not go on where the last download stopped")
    if code != 200:
        raise Refused(f"the server answers {code} {response.reason or ''}".rstrip())
    length = response.headers.get("Content-Length", "")
    total = _fits(int(length), file) if length.isdecimal() else file.size
    part.truncate(0)
    return 0, total


def _fits(total: int, file: File) -> int:
    if file.size is None and total > LIMIT:
        raise Refused(f"it has {total:,} bytes there, more than the {LIMIT:,} that are taken")
    if file.size not in (None, total):
        raise Refused(f"it has {total:,} bytes there, the official file {file.size:,}")
    return total


def _what_is_wrong(part: BufferedRandom, file: File) -> str | None:
    path = Path(part.name)
    if file.md5 is None:
        ending = Path(file.name).suffix
        return None if whole(path, ending) else f"what came is not a whole {ending} file"
    return None if digest(path, "md5") == file.md5 else "what came is not the official file (its md5 differs)"


def _record(place: Path) -> None:
    """Keep the checksum of what came, so that a later copy can be compared with it."""
    record = place.parent / RECORD
    lines = record.read_text("utf-8").splitlines() if record.exists() else []
    kept = [line for line in lines if line.split(maxsplit=1)[-1:] != [place.name]]
    fresh = record.with_name(f".{RECORD}.{os.getpid()}.tmp")
    fresh.write_text("\n".join([*kept, f"{digest(place, 'sha256')}  {place.name}", ""]), "utf-8")
    os.replace(fresh, record)


def _explain(error: RequestException) -> str:
    import requests

    if isinstance(error, requests.exceptions.InvalidSchema):
        return f"it leads to an address that is neither http nor https ({_root(error)})"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} seconds"
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects in a circle"
    return f"no connection ({_root(error)})"


def _root(error: BaseException) -> str:
    """The innermost cause in one line: requests wraps 'connection refused' in four others."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}".splitlines()[0]
