"""learn2learn tasksets as a task family: every episode is a task, its shots the support set and the rest the query set.

    tasks:
      name: custom
      source: my_tasks.py:family        # a function of seed and device that returns a TasksetFamily

Nothing here imports learn2learn: whoever has a taskset has imported it. On a CPU-only torch, import it through
`leap.l2l.load()`, which mends its torchvision.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.nn import functional as F

from leap.errors import UsageError
from leap.layout import Layout
from leap.randomness import derive

SPLITS = ("train", "validation", "test")


class TasksetFamily:
    """A task family (`leap.trainer.Family`) of few-shot episodes.

    Args:
        tasksets: By split (`train`, `validation`, `test`), a `learn2learn.data.Taskset` whose tasks are pairs (data,
            labels) with the same number of classes and of examples a class throughout.
        module: The network, with `ways` outputs. It is copied; batch normalization in the copy uses the statistics of
            the batch at hand.
        shots: Examples a class that are trained on; the others are the query set.
        episodes: Tasks a split where a taskset is endless (`num_tasks=-1`), which has as many as one likes.
        seed: Decides which episode a task id is: the same ids and seed give the same episodes.
        device: Where batches and network live.

    Raises:
        UsageError: something else than a Taskset, an unknown split, or counts below one.
    """

    def __init__(
        self,
        tasksets: Mapping[str, Any],
        module: nn.Module,
        *,
        shots: int,
        episodes: int = 1000,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(tasksets, shots, episodes)
        self.shots, self.seed, self.device = shots, seed, torch.device(device)
        self.module = replace_all_batch_norm_modules_(copy.deepcopy(module)).to(self.device)
        self.layout = Layout.of(self.module)
        # Does the network take `rows`, the number of images whose statistics normalize all (tasks.models)?
        self.takes_rows = "rows" in inspect.signature(self.module.forward).parameters
        self._tasksets = dict(tasksets)
        self._ids: dict[str, range] = {}
        for split in SPLITS:
            count = 0 if split not in tasksets else tasksets[split].num_tasks
            first = sum(len(ids) for ids in self._ids.values())
            self._ids[split] = range(first, first + (episodes if count == -1 else count))

    def ids(self, which: str) -> Sequence[int]:
        """Task ids of a split; none where it has no taskset."""
        if which not in SPLITS:
            raise UsageError(f"no split {which!r}; there are {SPLITS}")
        return self._ids[which]

    def name(self, task: int) -> str:
        """Split and number of an episode."""
        split, index = self._place(task)
        return f"{split} episode {index}"

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]: every layer's own `reset_parameters`."""
        fresh = copy.deepcopy(self.module).cpu()
        with _seeded(derive(seed, "initialization")):
            for layer in fresh.modules():
                reset = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
        return self.layout.flatten(fresh).to(self.device)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> TasksetBatch:
        """Episodes that walk together. Every step trains on the whole support set: nothing is drawn from `seeds`."""
        episodes = [self._draw(task) for task in ids]
        shapes = {tuple(tuple(part.shape) for part in episode) for episode in episodes}
        if len(shapes) > 1:
            raise UsageError(f"episodes that walk together must be of one shape, got {sorted(shapes)}")
        support, support_labels, query, query_labels = (
            torch.stack(parts).to(self.device) for parts in zip(*episodes, strict=True)
        )
        return TasksetBatch(self, ids, (support, support_labels), (query, query_labels))

    def _draw(self, task: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """An episode, split: support data and labels, query data and labels."""
        split, index = self._place(task)
        taskset = self._tasksets[split]
        # A new description each time: those that a finite taskset remembers depend on who asked it first.
        with _seeded(derive(self.seed, "taskset", split, index)):
            data, labels = taskset.get_task(taskset.sample_task_description())
        try:
            return split_episode(torch.as_tensor(data), torch.as_tensor(labels), self.shots)
        except UsageError as error:
            raise UsageError(f"{self.name(task)}: {error}") from error

    def _place(self, task: int) -> tuple[str, int]:
        """Split of a task and its number there."""
        split = next((name for name, ids in self._ids.items() if task in ids), None)
        if split is None:
            raise UsageError(f"no task {task}; there are {sum(map(len, self._ids.values()))}, from 0")
        return split, task - self._ids[split].start


class TasksetBatch:
    """T episodes walking together (a `leap.walk.TaskBatch`)."""

    def __init__(
        self, family: TasksetFamily, ids: Sequence[int], support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]
    ) -> None:
        self.size, self.layout = len(ids), family.layout
        self._family, self._support, self._query = family, support, query
        training = family.ids("train")
        self.heads, self.head_count = torch.tensor([task if task in training else 0 for task in ids]), len(training)

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The whole support set at every step: data [T, ways * shots, ...] and labels [T, ways * shots]."""
        return _cast(self._support, theta.dtype)

    def query(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The query set, in the same form."""
        return _cast(self._query, theta.dtype)

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean cross-entropy of one episode in nats, and its error in percent."""
        data, labels = batch
        loss, error = _judge(self._forward(theta, (data,)), labels)
        return loss, {"error": error}

    @torch.no_grad()
    def score(self, theta: Tensor) -> dict[str, Tensor]:
        """Error (percent) and loss (nats) [T] on the query sets at theta [T, n].

        A network that takes `rows` is normalized by the statistics of the support set; any other by what its batch
        normalization makes of the query set as one batch, which is the custom of few-shot work.
        """
        losses, errors = [], []
        (support, _), (query, labels) = self.sample(theta, 0), self.query(theta, 0)
        for point, shown, asked, truth in zip(theta, support, query, labels, strict=True):
            if self._family.takes_rows:
                logits = self._forward(point, (torch.cat([shown, asked]), len(shown)))[len(shown) :]
            else:
                logits = self._forward(point, (asked,))
            loss, error = _judge(logits, truth)
            losses.append(loss)
            errors.append(error)
        return {"test_error": torch.stack(errors), "test_loss": torch.stack(losses)}

    def _forward(self, theta: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        # tie_weights: a network that registers a layer under two names, as some of learn2learn's do, would otherwise
        # have its own weights replaced by the call.
        named = self.layout.unflatten(theta)
        logits: Tensor = functional_call(self._family.module, named, arguments, tie_weights=False)
        return logits


def split_episode(data: Tensor, labels: Tensor, shots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Support and query part of an episode, class by class.

    Args:
        data: Examples, [N, ...], in any order.
        labels: Their labels, [N], any integers.
        shots: Examples of every class that go to the support set: the first ones.

    Returns:
        Support data, support labels, query data, query labels. Both parts are sorted by class; labels are
        0 .. ways - 1 in the order of the original labels.

    Raises:
        UsageError: classes of different size, or nothing left to ask.

    Example:
        >>> data, labels = torch.arange(6), torch.tensor([7, 3, 7, 3, 3, 7])
        >>> split_episode(data, labels, shots=2)
        (tensor([1, 3, 0, 2]), tensor([0, 0, 1, 1]), tensor([4, 5]), tensor([0, 1]))
    """
    if len(data) != len(labels):
        raise UsageError(f"an episode has a label for each example, got {len(data)} examples and {len(labels)} labels")
    classes, remapped, counts = labels.unique(return_inverse=True, return_counts=True)
    if bool((counts != counts[0]).any()):
        found = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        raise UsageError(f"an episode has as many examples of each class, got {found}; give the taskset KShots")
    if not 0 < shots < counts[0]:
        raise UsageError(
            f"{shots} shots of {int(counts[0])} examples a class leave no query set; let the taskset draw more (KShots)"
        )
    order = remapped.argsort(stable=True).unflatten(0, (len(classes), -1))  # [ways, examples]
    support, query = order[:, :shots].flatten(), order[:, shots:].flatten()
    return data[support], remapped[support], data[query], remapped[query]


def _judge(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(logits, labels), 100 * (logits.argmax(-1) != labels).float().mean()


def _cast(batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    data, labels = batch
    return (data.to(dtype) if data.is_floating_point() else data), labels


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators, which tasksets, their data sets and torch's layers draw from, seeded and put back."""
    plain, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)  # the CPU's alone: fork_rng puts no other back
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(array)


def _check(tasksets: Mapping[str, Any], shots: int, episodes: int) -> None:
    unknown = sorted(set(tasksets) - set(SPLITS))
    if unknown or "train" not in tasksets:
        raise UsageError(f"tasksets are given by split, 'train' among them, of {SPLITS}; got {sorted(tasksets)}")
    for split, taskset in tasksets.items():
        missing = [m for m in ("num_tasks", "sample_task_description", "get_task") if not hasattr(taskset, m)]
        if missing:
            raise UsageError(
                f"the {split} taskset must be a learn2learn.data.Taskset, "
                f"got {type(taskset).__name__} without {missing}"
            )
    for name, value in {"shots": shots, "episodes": episodes}.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
