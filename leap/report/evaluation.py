"""evaluation.json as arrays: S evaluation seeds, T held-out tasks, K inner steps; of games, N episodes a walk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leap.errors import RunError

FILE = "evaluation.json"
CURVES = ("train_error", "train_loss")  # [S, T, K]; every other measurement is [S, T]
OPTIONAL = ("test_error", "train_error", "train_error_auc")  # absent where a family has no error
REQUIRED = ("test_loss", "train_loss", "train_loss_auc", "path_length")
BASELINE = "none"
EPISODES = "episodes"  # [S][T], a list of [agent step at its end, score, length in agent steps] each
COLUMNS = ("task", "evaluation_seed", "inner_step", "initialization", "train_loss", "train_error")  # of `curve_rows`


@dataclass(frozen=True)
class Evaluation:
    """What `leap evaluate` measured; `values[name][key]` are an initialization's numbers, NaN where not finite.

    Of games: `episodes[name][s][t]` are the episodes of a walk in the order in which they ended, [N, 3] (agent step,
    score, length); `references` says what random play and a human score, by task; `agent_steps` and `frame_skip` how
    many agent steps a walk took and how many frames each lasts, None where the document does not say. A score that is
    not finite is NaN. `pretraining_tasks` counts the tasks there were to pretrain on, None likewise.
    """

    family: str
    split: str
    steps: int
    tasks: tuple[str, ...]
    evaluation_seeds: tuple[int, ...]
    learner: str
    seed: int
    values: Mapping[str, Mapping[str, np.ndarray]]
    episodes: Mapping[str, Sequence[Sequence[np.ndarray]]] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    agent_steps: int | None = None
    frame_skip: int | None = None
    pretraining_tasks: int | None = None

    @property
    def has_returns(self) -> bool:
        """Whether the tasks are games, of which every walk left its episodes."""
        return bool(self.episodes) and len(self.episodes) == len(self.values)

    @property
    def has_error(self) -> bool:
        """Whether the family measures an error in percent beside its loss."""
        return all("test_error" in values for values in self.values.values())

    @property
    def task_count(self) -> int:
        """How many tasks were held out."""
        return len(self.tasks)

    @property
    def stops_early(self) -> bool:
        """Whether a walk took fewer steps than another may have."""
        return any((values["steps"] < self.steps).any() for values in self.values.values() if "steps" in values)

    def level_curves(self, name: str, last: int) -> np.ndarray:
        """The learning curves of an initialization, [S T, K]; see `kept`."""
        values = self.values[name]
        curves = values[self.curve].reshape(-1, values[self.curve].shape[-1])
        return kept(curves, values["steps"].reshape(-1), last) if "steps" in values else curves

    @property
    def curve(self) -> str:
        """The key of the learning curve that people look at: the training error where there is one."""
        return "train_error" if self.has_error else "train_loss"


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file; raises RunError, naming file and place, where it is damaged."""
    return parse_evaluation(read_json(path), path)


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises RunError where it cannot be read or is cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror or error}. May it be read?") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged or cut short ({error}). {_cure(path)}") from None


def parse_evaluation(content: Any, path: Path | str = FILE) -> Evaluation:
    """Check the content of an evaluation.json and give it as arrays.

    Args:
        content: The parsed file.
        path: Named in errors.

    Raises:
        RunError: another format, a missing field, a wrong shape, or an error outside 0..100 percent.
    """
    if not isinstance(content, dict) or content.get("format") != 1:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise RunError(f"{path} has format {found!r}, this program reads format 1. {_cure(path)}")
    try:
        head = Evaluation(
            family=str(content["family"]),
            split=str(content["split"]),
            steps=int(content["steps"]),
            tasks=tuple(str(task) for task in content["tasks"]),
            evaluation_seeds=tuple(int(seed) for seed in content["evaluation_seeds"]),
            learner=str(content["learner"]),
            seed=int(content["seed"]),
            values={},
            references=_references(content.get("references", {})),
            agent_steps=_positive(content, "agent_steps"),
            frame_skip=_positive(content, "frame_skip"),
            pretraining_tasks=_positive(content, "pretraining_tasks", least=0),
        )
        named = dict(content["initializations"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} lacks a field or holds a wrong one ({error!r}). {_cure(path)}") from None
    if head.learner not in named:
        raise RunError(f"{path} holds {sorted(named)} but not its own learner {head.learner!r}. {_cure(path)}")
    values = {str(name): _measurements(head, str(name), held, path) for name, held in named.items()}
    episodes = {
        str(name): _episodes(head, held[EPISODES], f"{path}: initializations.{name}.{EPISODES}", _cure(path))
        for name, held in named.items()
        if EPISODES in held
    }
    return Evaluation(**{**vars(head), "values": values, "episodes": episodes})


def curve_rows(evaluation: Evaluation) -> list[list[Any]]:
    """Every point of every learning curve, a row of COLUMNS each; None where there is no value. Inner steps from 1."""
    rows: list[list[Any]] = []
    for name, values in evaluation.values.items():
        for s, seed in enumerate(evaluation.evaluation_seeds):
            for t, task in enumerate(evaluation.tasks):
                loss = values["train_loss"][s, t]
                error = values["train_error"][s, t] if "train_error" in values else np.full_like(loss, np.nan)
                pairs = zip(_plain(loss), _plain(error), strict=True)
                rows += [[task, seed, step, name, *pair] for step, pair in enumerate(pairs, 1)]
    return rows


def kept(curves: np.ndarray, steps: np.ndarray, last: int) -> np.ndarray:
    """Curves [N, K] as far as the longest goes: walks that ended earlier keep their last level until then.

    Args:
        curves: A walk a row; what stands behind its end does not matter.
        steps: That each walk took, [N]. NaN before the end says that a walk diverged, and stays.
        last: Steps whose mean is the last level.

    Example:
        >>> kept(np.array([[4.0, 2.0, 1.0, np.nan], [3.0, 1.0, np.nan, np.nan]]), np.array([3, 2]), last=2)
        array([[4., 2., 1.],
               [3., 1., 2.]])
    """
    found = curves[:, : int(steps.max())].copy()
    for row, taken in zip(found, steps.astype(int), strict=True):
        if taken < len(row):
            row[taken:] = row[max(0, taken - last) : taken].mean()
    return found


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _measurements(head: Evaluation, name: str, held: Any, path: Path | str) -> dict[str, np.ndarray]:
    arrays = {}
    for key in (*REQUIRED, *OPTIONAL, *(held if isinstance(held, dict) else ())):
        if key == EPISODES:  # as many as a walk happened to end, so no table
            continue
        where = f"{path}: initializations.{name}.{key}"
        if not isinstance(held, dict) or key not in held:
            if key in REQUIRED:
                raise RunError(f"{where} is missing. {_cure(path)}")
            continue
        try:
            array = np.array(held[key], dtype=float)  # null becomes NaN
        except (TypeError, ValueError, OverflowError):
            raise RunError(f"{where} is not a table of numbers. {_cure(path)}") from None
        shape: tuple[int, ...] = (len(head.evaluation_seeds), len(head.tasks))
        if key in CURVES:
            shape = (*shape, array.shape[-1] if array.ndim == 3 else head.steps)
        if array.shape != shape or 0 in shape:
            raise RunError(f"{where} has shape {list(array.shape)}, expected {list(shape)}. {_cure(path)}")
        if "error" in key and np.nanmax(array, initial=0.0) > 100.001:  # the walk counts in single precision
            raise RunError(f"{where} reaches {np.nanmax(array):g}; errors are percent, 0 to 100. {_cure(path)}")
        arrays[key] = np.where(np.isfinite(array), array, np.nan)
    return arrays


def _episodes(head: Evaluation, held: Any, where: str, cure: str) -> list[list[np.ndarray]]:
    """The episodes of every walk, [S][T] of [N, 3]; raises RunError where they are not that."""
    try:
        found = [[_walk(walk) for walk in row] for row in held]
    except (TypeError, ValueError, OverflowError):
        raise RunError(f"{where} is not lists of [agent_step, score, length]. {cure}") from None
    if [len(row) for row in found] != [len(head.tasks)] * len(head.evaluation_seeds):
        shape = [len(found), *sorted({len(row) for row in found})]
        raise RunError(f"{where} has {shape} walks, expected {[len(head.evaluation_seeds), len(head.tasks)]}. {cure}")
    for walk in (walk for row in found for walk in row):
        if not (np.diff(walk[:, 0], prepend=0) >= 0).all():  # so NaN is refused; a score that is none stays NaN
            raise RunError(f"{where}: agent steps must be finite, and in the order in which episodes ended. {cure}")
    return found


def _walk(held: Any) -> np.ndarray:
    """The episodes of one walk, [N, 3]."""
    found = np.array(held, dtype=float) if len(held) else np.zeros((0, 3))
    if found.ndim != 2 or found.shape[1] != 3:
        raise ValueError
    return found


def _references(held: Any) -> dict[str, dict[str, float]]:
    return {
        str(name): {key: float(of[key]) for key in ("random", "human", "best") if key in of}
        for name, of in held.items()
    }


def _positive(content: Mapping[str, Any], key: str, least: int = 1) -> int | None:
    """A whole number from `least` on; None where there is none."""
    value = content.get(key)
    if value is not None and int(value) < least:
        raise ValueError(f"{key} is {value}")
    return None if value is None else int(value)


def _cure(path: Path | str) -> str:
    if Path(path).name != FILE:
        return "Restore it, or leave this run out."
    return f"Write it anew: leap evaluate {Path(path).parent}"
