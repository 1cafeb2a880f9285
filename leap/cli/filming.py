"""Videos of an evaluation of games: whole episodes played where walks end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from leap.cli.arguments import Option
from leap.cli.settings import Settings
from leap.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from leap.run import RunFolder
    from leap.trainer import Family
    from tasks.games import Games

VIDEO = Option(
    "--video",
    "value",
    "Of games: film N whole episodes of each and of either initialization where their walks end, by default one, into "
    "the run's videos/.",
    "[N]",
)
_NUMBER = re.compile(r"[-+]?\d[\d.]*")


class Filming:
    """What `leap.evaluate.evaluate` calls at the end of walks, for one run.

    Of a game and an initialization the first walk is filmed, that of the first evaluation seed. Episode i of a game has
    the same seed for every initialization.

    Args:
        run: Whose folder gets `videos/`.
        settings: Of the run.
        family: Its tasks.
        episodes: Of each game and initialization.
        say: Takes what is left out.

    Raises:
        UsageError: tasks that are no games, or no way to write videos.
    """

    def __init__(
        self, run: RunFolder, settings: Settings, family: Family, episodes: int, say: Callable[[str], None]
    ) -> None:
        from leap.videos import Videos
        from tasks.film import SECONDS

        check_games(family, settings, run.path)
        self._family, self._episodes, self._say, self._seed = cast("Games", family), episodes, say, settings.seed
        about = {"run": run.name, "seed": settings.seed, "steps": settings.evaluate.steps, "seconds": SECONDS}
        about["episodes"] = episodes
        self.videos = Videos(run.path / "videos", about)
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, initialization: str, repetition: int, ids: Sequence[int], theta: Tensor) -> None:
        """Film tasks `ids` at theta [T, n], where walks from an initialization end."""
        for task, point in zip(ids, theta, strict=True):
            if (initialization, task) in self._seen:  # in a walk of an earlier seed, or since a run learned nothing
                continue
            self._seen.add((initialization, task))
            if bool(point.isfinite().all()):
                self._film(initialization, repetition, task, point)
            else:
                game = self._family.name(task)
                self._say(f"no video of {game} from {initialization}: the walk ended in parameters that are not finite")

    def _film(self, initialization: str, repetition: int, task: int, point: Tensor) -> None:
        from leap.randomness import derive
        from tasks.film import film, score_text, told

        game = self._family.name(task)
        for episode in range(1, self._episodes + 1):
            found = film(self._family, task, point, derive(self._seed, "video", repetition, game, episode))
            name = (game, initialization, str(episode), score_text(found))
            who = {"game": game, "initialization": initialization, "evaluation_seed": repetition, "episode": episode}
            self.videos.add(found.frames, found.rate, name, {**who, **told(found)})

    def finish(self) -> None:
        """Put the new videos in the place of those before."""
        self.videos.finish()


def check_games(family: Family, settings: Settings, path: Path) -> None:
    """Refuse to film the run in a folder: tasks that are no games, or no way to write videos."""
    from leap.videos import check_webp

    if not hasattr(family, "filmed"):
        raise UsageError(f"--video films games, and {path} learns {settings.tasks.name}; evaluate it without --video")
    check_webp()


def filmed(folder: Path, steps: int) -> int:
    """Episodes that a run's folder shows of each game and initialization, after walks of so many steps; 0: none."""
    try:
        document = json.loads((folder / "videos" / "index.json").read_text())
        return int(document["episodes"]) if document["steps"] == steps else 0
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # missing, damaged, or by an earlier version
        return 0


def counted(argv: Sequence[str]) -> list[str]:
    """The arguments with the number of episodes written out where `--video` stands alone.

    Example:
        >>> counted(["--video", "run"]), counted(["run", "--video", "3"])
        (['--video', '1', 'run'], ['run', '--video', '3'])
    """
    found: list[str] = []
    for place, word in enumerate(argv):
        found.append(word)
        after = argv[place + 1] if place + 1 < len(argv) else ""
        if word == "--video" and "--" not in argv[:place] and not _NUMBER.fullmatch(after):
            found.append("1")
    return found


def episodes(given: str | None) -> int:
    """Episodes asked for; 0: no videos.

    Raises:
        UsageError: no whole number of at least 1.
    """
    if given is None:
        return 0
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"--video takes the number of episodes of each game, at least 1, got {given!r}")
    return int(given)
