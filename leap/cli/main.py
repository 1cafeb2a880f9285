"""The command `leap`: finds the command, runs it, and turns whatever goes wrong into one message and an exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import leap
from leap.cli.endings import TIME_UP, TimeUp, duration, interruptible
from leap.errors import LeapError

COMMANDS = {
    "train": ("leap.cli.train", "meta-train an initialization"),
    "evaluate": ("leap.cli.evaluate", "walk held-out tasks from a learned initialization"),
    "measure": ("leap.cli.measure", "how far tasks are from an initialization and from each other"),
    "score": ("leap.cli.score", "how well features suit a task, from arrays of any framework"),
    "compare": ("leap.cli.compare", "train and evaluate several learners over several seeds"),
    "report": ("leap.cli.report", "put evaluated runs on one page"),
    "toy": ("leap.cli.toy", "see pull-forward on loss surfaces over a plane"),
    "export": ("leap.cli.export", "put a learned initialization into a folder to share"),
    "dashboard": ("leap.cli.dashboard", "build a wandb workspace and report of a group of runs"),
    "fetch": ("leap.cli.fetch", "download a data set"),
    "bench": ("leap.cli.bench", "time the parts beside reference loops"),
}

LONGEST = 4000
"""Characters of a message that are shown; what is longer is left out in its middle."""
_DISK_FULL = "free some space, or name a folder on another disk"
_CURES = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: "a limit on the size of files is reached (ulimit -f); raise it, or name a folder on another disk",
    errno.EROFS: "the disk cannot be written to; name a folder on another one",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check that it exists",
    errno.ENOTDIR: "a part of this path is a file; choose another one",
    errno.EEXIST: "choose another name",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `leap COMMAND ...` and return the exit code.

    0: done. 1: something failed on the way. 2: it was asked for in a way that cannot be done. 75: `--max-time` is over.
    130: interrupted.
    With `--debug` exceptions pass through, with their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        words, allowed = _allowed([word for word in words if word != "--debug"])
        with interruptible(allowed):
            code = _run(words)
        if sys.stdout is not None:  # None where the caller closed it
            sys.stdout.flush()  # a reader that has left (`leap ... | head`) is noticed here, not at exit
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it shuts down
        return 128 + 13
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        return _tell(error)


def _allowed(words: list[str]) -> tuple[list[str], float | None]:
    """The words without `--max-time`, and its seconds."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--max-time", "--max_time"):
            after = words[place + 1 :]
            if not equals:
                value, after = (after[0], after[1:]) if after else ("", [])
            return [*words[:place], *after], duration(value)
    return words, None


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        print(f"leap {leap.__version__}")
        return 0
    if words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"
        print(shown(f"leap: no command {words[0]!r}; {hint} (see leap --help)"), file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[words[0]][0])
    try:
        return int(module.main(words[1:]) or 0)
    except SystemExit as stop:  # a library that ends the program in its own way
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: leap COMMAND ...",
            "",
            "Meta-learn an initialization, evaluate it on held-out tasks, compare and report.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help  show this help; leap COMMAND --help shows a command's",
            "  --version   show the version",
            "  --debug     show tracebacks",
            "  --max-time T  end after this time (90s, 15m, 1h30m) as SIGTERM does: save what is under way, exit with",
            f"              {TIME_UP}; the same command, or leap train --resume, goes on",
            "",
            "example:",
            "  leap train quickstart.yaml learner/leap.yaml --seed 1 --out runs/first",
        ]
    )


def _tell(error: BaseException) -> int:
    """Print what went wrong; the exit code."""
    code, message = _explain(error)
    print(f"leap: {shown(message)}", file=sys.stderr)
    return code


def shown(message: str) -> str:
    r"""A message without what a terminal would obey, and not longer than `LONGEST`: names in it are anyone's words.

    Example:
        >>> print(shown("no setting '\x1b[2J'"))
        no setting '\x1b[2J'
    """
    if len(message) > LONGEST:
        half = LONGEST // 2
        message = f"{message[:half]} ... ({len(message) - 2 * half} characters) ... {message[-half:]}"
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in message
    )


def _explain(error: BaseException) -> tuple[int, str]:
    if isinstance(error, TimeUp):
        return TIME_UP, "the time allowed (--max-time) is over; repeat the command to go on"
    if isinstance(error, LeapError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, OSError):
        return 1, _explain_os(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "leap").partition(".")[0] not in (
        "leap",
        "tasks",
        "envs",
    ):
        return 1, f"the package {error.name} is not installed here; install it: pip install {error.name}"
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":  # the latter is torch's, for a GPU
        text = "out of memory; try a smaller --train.meta-batch or --train.execution sequential (--debug shows where)"
        return 1, text
    what = " ".join(str(error).split())[:300]
    return 1, f"this is a defect of leap: {kind}: {what} (add --debug to see the traceback, and report it)"


def _explain_os(error: OSError) -> str:
    what = error.strerror or " ".join(str(error).split()) or type(error).__name__
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    cure = _CURES.get(error.errno or 0, "add --debug to see where it happened")
    return f"{where}{what}; {cure}"
