"""Multi-CV: every vision data set is a task, with a head of its own behind one encoder, Leap's second experiment.

`Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_, section 4.2 and appendix E. The encoder is the network of
the Omniglot experiment on pictures of 32 x 32 in three channels, and it alone is meta-learned; a task's head is drawn
anew at the start of every walk. No code of it was released, and the paper's hyper-parameters were not recovered.
Decided here:

- 15% of a set's training images are for validation, as in HAT's experiment (Serra et al. 2018), whose sets these are;
  classes are represented in proportion. The test images decide nothing, and are for the final scores alone.
- Pictures are normalized by the constants of HAT's code where it has the set, else by the training images' own.
- Scores normalize features by the statistics of the task's own training images, as for every family here.
- The encoder's output is flattened for the head (2 x 2 x channels).

Images live on the device as bytes, grey ones in one channel, and a batch is a gather.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from leap.epochs import Order
from leap.errors import UsageError
from leap.layout import Layout
from leap.measure.problem import TaskData
from leap.randomness import generator
from tasks.models import Conv4, Norm, headless, initialize
from tasks.parts import Part, Pictures, normalized, placed
from tasks.stages import Conv4Stages

SPLITS = ("train", "validation", "test")
STATISTICS = 500  # training images whose statistics normalize what is scored
_SEEN = 1500  # training images whose error is told at the end of a walk
_CHUNK = 500  # images scored in a pass, beside those that make statistics
Logits = Callable[[Tensor, Tensor, int | None], Tensor]
"""A network: parameters [p], images [B, 3, H, W], the rows that make statistics -> logits [B, classes]."""


class MultiCV:
    """A task family: every data set is a task with its own head, behind one encoder.

    Heads are as wide as the widest task's, and a task's missing classes are masked, so its loss and gradient are those
    of a head of its own width. `layout.shared` ends where the head begins: learners see the encoder alone.

    Args:
        tasks: Pictures of every task, all of one size.
        held_out: Names of the tasks that no pretraining sees.
        seed: Recorded; the pictures were drawn with it.
        batch_size: Images an inner step.
        filters, norm: Of the convolutional network.
        device: Where images and batches live.

    Raises:
        UsageError: pictures of several sizes, or a task held out that is not there.
    """

    def __init__(
        self,
        tasks: Sequence[Pictures],
        *,
        held_out: Sequence[str],
        seed: int,
        batch_size: int = 32,
        filters: int = 64,
        norm: Norm = "batch",
        device: torch.device | str = "cpu",
    ) -> None:
        sizes = {task.name: tuple(task.train.images.shape[2:]) for task in tasks}
        if len(set(sizes.values())) != 1:
            raise UsageError(f"tasks need pictures of one size, got {sizes}")
        self.seed, self.batch_size, self.device = seed, batch_size, torch.device(device)
        self.tasks = tuple(placed(task, self.device) for task in tasks)
        self.names = tuple(task.name for task in tasks)
        self._ids = _split(self.names, held_out)
        self._options: dict[str, Any] = {
            "classes": max(len(task.classes) for task in tasks),
            "filters": filters,
            "channels": 3,
            "size": next(iter(sizes.values()))[0],
            "norm": norm,
        }
        self.module = Conv4(**self._options).to(self.device)
        self.layout = Layout.of(self.module, own_head=True)
        self.network = Conv4Stages(self.module, self.layout)
        self._trunk, self._trunk_layout = headless(self.module), self.layout.without_head()

    @property
    def width(self) -> int:
        """Features that a head sees."""
        return self.module.head.in_features

    def ids(self, which: str) -> tuple[int, ...]:
        """Task ids of a split: `train`, `validation` (none: every task has validation images of its own) or `test`."""
        if which not in SPLITS:
            raise UsageError(f"no split {which!r}; there are {SPLITS}")
        return self._ids[which]

    def name(self, task: int) -> str:
        """The data set's name."""
        return self.names[task]

    def epoch(self, task: int) -> int:
        """Inner steps in which a task sees each of its training images once, rounded up."""
        return -(-len(self.tasks[task].train.labels) // self.batch_size)

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]; its head only holds the place of those that tasks draw."""
        fresh = initialize(Conv4(**self._options), generator(seed, "initialization"))
        return self.layout.flatten(fresh).to(self.device)

    def heads(self, seeds: Sequence[int]) -> Tensor:
        """Random heads [T, n - trunk], one a seed, initialized as the network's own."""
        made = []
        for seed in seeds:
            layer = torch.nn.Linear(self.width, self._options["classes"])
            initialize(layer, generator(seed, "head"))
            made.append(torch.cat([layer.weight.detach().reshape(-1), layer.bias.detach()]))
        return torch.stack(made).to(self.device)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> MultiCVBatch:
        """Tasks that walk together, each with the seed of its own head and stream of batches."""
        return MultiCVBatch(self, ids, seeds)

    def logits(self, theta: Tensor, images: Tensor, rows: int | None = None) -> Tensor:
        """Logits [B, classes] of normalized images [B, 3, H, W] at theta [n]."""
        found: Tensor = functional_call(self.module, self.layout.unflatten(theta), (images, rows))
        return found

    def features(self, trunk: Tensor, inputs: Tensor) -> Tensor:
        """Features [N, width] of inputs [N, 3, H, W] at a trunk [m]; with norm `batch`, normalized over these N."""
        found: Tensor = functional_call(self._trunk, self._trunk_layout.unflatten(trunk), (inputs,))
        return found

    def dataset(self, task: int) -> TaskData:
        """A task's training and test images as the loss sees them, and labels."""
        own = self.tasks[task]
        train, test = (normalized(own, part.images, torch.float32) for part in (own.train, own.test))
        return TaskData(own.name, train, own.train.labels, test, own.test.labels, len(own.classes))


class PictureBatch:
    """T tasks' pictures behind any network (a `leap.walk.TaskBatch`); theta is the network's own vector [p].

    There is no `query`: a learner that wants held-out data for its outer loss is given the next training batch, so that
    neither validation nor test images are trained on.
    """

    def __init__(self, family: MultiCV, ids: Sequence[int], seeds: Sequence[int], logits: Logits) -> None:
        self.size, self._family, self._logits = len(ids), family, logits
        self._ids, self._seeds = tuple(ids), tuple(seeds)
        self._tasks = [family.tasks[task] for task in ids]
        places = {task: place for place, task in enumerate(family.ids("train"))}
        self.heads = torch.tensor([places.get(task, 0) for task in ids], device=family.device)
        self.head_count = len(places)
        self._classes = torch.tensor([len(task.classes) for task in self._tasks], device=family.device)
        self._orders = [
            Order(len(task.train.labels), family.batch_size, seed, "epoch", device=family.device)
            for task, seed in zip(self._tasks, seeds, strict=True)
        ]

    @property
    def epoch(self) -> int:
        """Inner steps of an epoch, of the longest task's."""
        return max(self._family.epoch(task) for task in self._ids)

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images [T, B, 3, H, W], labels [T, B] and numbers of classes [T] of an inner step."""
        images, labels = [], []
        for task, order in zip(self._tasks, self._orders, strict=True):
            rows = order.batch(step)
            images.append(normalized(task, task.train.images[rows], theta.dtype))
            labels.append(task.train.labels[rows])
        return torch.stack(images), torch.stack(labels), self._classes

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean cross-entropy of one task in nats, over its own classes, and its error in percent."""
        images, labels, classes = batch
        logits = _masked(self._logits(theta, images, None), classes)
        return F.cross_entropy(logits, labels), {"error": 100 * (logits.argmax(-1) != labels).float().mean()}

    @torch.no_grad()
    def validation_error(self, theta: Tensor) -> Tensor:
        """Error on the validation images [T], percent, at theta [T, p]."""
        return torch.stack([self._errors(task, at, task.validation)[0] for task, at in self._pairs(theta)])

    @torch.no_grad()
    def score(self, theta: Tensor) -> dict[str, Tensor]:
        """Errors (percent) on test, validation and training images and the test loss (nats), [T], at theta [T, p].

        Of the training images the first 1500 are scored.
        """
        rows = []
        for task, at in self._pairs(theta):
            seen = Part(task.train.images[:_SEEN], task.train.labels[:_SEEN])
            test, loss = self._errors(task, at, task.test)
            rows.append([test, loss, self._errors(task, at, task.validation)[0], self._errors(task, at, seen)[0]])
        keys = ("test_error", "test_loss", "validation_error", "final_train_error")
        return dict(zip(keys, torch.tensor(rows, device=theta.device).unbind(1), strict=True))

    def _pairs(self, theta: Tensor) -> zip[tuple[Pictures, Tensor]]:
        return zip(self._tasks, theta, strict=True)

    def _errors(self, task: Pictures, theta: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        """Error (percent) and loss (nats) on images, normalized by the statistics of training images."""
        known = normalized(task, task.train.images[:STATISTICS], theta.dtype)
        classes = torch.tensor(len(task.classes), device=theta.device)
        found = []
        for images in part.images.split(_CHUNK):
            both = torch.cat([known, normalized(task, images, theta.dtype)])
            found.append(_masked(self._logits(theta, both, len(known))[len(known) :], classes))
        logits = torch.cat(found)
        return 100 * (logits.argmax(-1) != part.labels).to(theta.dtype).mean(), F.cross_entropy(logits, part.labels)


class MultiCVBatch(PictureBatch):
    """T tasks walking together through the family's own network."""

    def __init__(self, family: MultiCV, ids: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__(family, ids, seeds, family.logits)
        self.layout, self.network = family.layout, family.network

    def start(self, theta0: Tensor) -> Tensor:
        """The same encoders [T, n] with heads drawn from the tasks' seeds."""
        heads = self._family.heads(self._seeds).to(theta0.dtype)
        return torch.cat([theta0[:, : self.layout.trunk], heads], dim=1)

    def through(self, logits: Logits) -> PictureBatch:
        """The same tasks through another network, whose whole vector walks."""
        return PictureBatch(self._family, self._ids, self._seeds, logits)


def _masked(logits: Tensor, classes: Tensor) -> Tensor:
    """Logits [B, C]; those of classes that the task has not are so low that they have no probability at all."""
    absent = torch.arange(logits.shape[-1], device=logits.device) >= classes
    # Finite, since infinity times zero would be NaN in a second derivative.
    return logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)


def _split(names: tuple[str, ...], held_out: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if unknown := [name for name in held_out if name not in names]:
        raise UsageError(f"{unknown[0]!r} is held out, but the tasks are {', '.join(names)}; name it among them")
    test = tuple(i for i, name in enumerate(names) if name in held_out)
    if not 0 < len(test) < len(names):
        raise UsageError(f"{len(test)} of {len(names)} tasks are held out; some must be, and some not")
    return {"train": tuple(i for i in range(len(names)) if i not in test), "validation": (), "test": test}
