"""What a run's data are and under which terms they stand, as far as this project knows; for its model card."""

from __future__ import annotations

from typing import NamedTuple

from leap.cli import settings as s
from leap.cli.task_settings import EMBEDDED
from tasks.datasets import DATASETS
from tasks.image_sources import SOURCES, is_path, shown


class Data(NamedTuple):
    """A source of data in words."""

    name: str
    what: str
    terms: str
    home: str | None = None
    """Its authors' address."""

    @property
    def published(self) -> bool:
        """Whether it is a data set that others know by its name."""
        return self.home is not None


_FONTS = Data(
    "glyphs",
    "characters drawn by the program with the DejaVu fonts that come with matplotlib",
    "no data set; the fonts have a free licence of their own",
)
_MADE = "made by the program; no data set"
_DRAWN = Data("", "drawn by the program (characters with matplotlib's DejaVu fonts)", "no data set")
_DIGITS = Data("digits", "scikit-learn's digits, 1,797 images of 8 x 8", "not known to this project")


def terms(settings: s.Settings) -> list[Data]:
    """The data of a run, each once.

    Example:
        >>> from leap.cli.settings import Omniglot, Settings
        >>> [(data.name, data.terms) for data in terms(Settings(tasks=Omniglot()))]
        [('omniglot', 'MIT (c) 2015 Brenden Lake')]
    """
    tasks = settings.tasks
    if isinstance(tasks, s.Omniglot):
        return [_known("omniglot")]
    if isinstance(tasks, s.Glyphs):
        return [_FONTS]
    if isinstance(tasks, s.DigitTasks):
        return [_known("mnist")]
    if isinstance(tasks, s.MultiCV | s.ImageSets):
        return list({data.name: data for data in map(_named, tasks.names)}.values())
    if isinstance(tasks, s.Atari):
        emulator = "Atari 2600 games, emulated by ale-py"
        return [Data("atari", emulator, "ale-py is GPL-2.0; the games belong to their owners; neither is part of this")]
    if isinstance(tasks, s.Custom):
        return [Data("custom", "tasks of the trainer's own", "not known to this project")]
    return [Data(tasks.name, "tasks made by a formula", _MADE)]


def _named(name: str) -> Data:
    if name == "digits":
        return _DIGITS
    if name in EMBEDDED:
        return _DRAWN._replace(name=name)
    if is_path(name) or name not in SOURCES:
        return Data(shown(name), "pictures of the trainer's own", "not known to this project")
    return _known(SOURCES[name].folder)


def _known(name: str) -> Data:
    row = DATASETS[name]
    return Data(name, row.title, row.licence, row.home)
