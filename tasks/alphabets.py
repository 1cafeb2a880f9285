"""Alphabets as tasks: telling apart the characters of one writing system, Omniglot's or the embedded glyphs'.

Images live on the device as bytes for the whole run, and a batch is a gather.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from leap.errors import UsageError
from leap.layout import Layout
from leap.measure.problem import TaskData
from leap.randomness import generator
from tasks.augment import Augmentation, apply_affine, draw_affine
from tasks.drawings import Drawings
from tasks.models import Conv4, Norm, headless, initialize


class Protocol(NamedTuple):
    """How alphabets become tasks and how they are split; the defaults are the paper's."""

    ways: int = 20
    shots: int = 15  # training drawings a character
    queries: int = 5  # test drawings a character
    train: int = 25  # pretraining alphabets, the first of the pool
    pool: int = 25  # alphabets that pretraining may use; those that are left over are for validation
    held_out: int = 10  # alphabets of the final evaluation
    batch_size: int = 20
    augmentation: Augmentation | None = Augmentation()


class Splits(NamedTuple):
    """Positions of alphabets; `validation` is neither in the pretraining pool nor held out."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split(count: int, protocol: Protocol, seed: int) -> Splits:
    """Split `count` alphabets by the seed alone.

    The held-out ones are drawn first, so they are the same whatever the number of pretraining alphabets; pretraining
    sets of one seed are nested, and validation never meets them.

    Raises:
        UsageError: there are not enough alphabets.

    Example:
        >>> small, large = (split(46, Protocol(train=n), seed=0) for n in (1, 25))
        >>> small.test == large.test and set(small.train) < set(large.train) and len(large.validation)
        11
    """
    if protocol.train + protocol.held_out > count:
        raise UsageError(
            f"{protocol.train} pretraining and {protocol.held_out} held-out alphabets need "
            f"{protocol.train + protocol.held_out}, but only {count} have enough characters and drawings; "
            "lower tasks.train or tasks.held_out"
        )
    order = torch.randperm(count, generator=generator(seed, "split")).tolist()
    test, rest = order[: protocol.held_out], order[protocol.held_out :]
    return Splits(tuple(rest[: protocol.train]), tuple(rest[max(protocol.pool, protocol.train) :]), tuple(test))


class Alphabets:
    """A task family: every alphabet is a classification task over `ways` of its characters.

    Args:
        drawings: Images of all alphabets.
        protocol: Ways, shots, splits, batch size, augmentation.
        seed: Decides the splits, and which characters and drawings a task uses.
        filters, norm: Of the convolutional network.
        device: Where images and batches live.

    Raises:
        UsageError: ways, shots or alphabets beyond what the drawings have.
    """

    def __init__(
        self,
        drawings: Drawings,
        protocol: Protocol,
        *,
        seed: int,
        filters: int = 64,
        norm: Norm = "batch",
        device: torch.device | str = "cpu",
    ) -> None:
        enough = [i for i, images in enumerate(drawings.images) if len(images) >= protocol.ways]
        _check(drawings, protocol, enough)
        self.names = tuple(drawings.names[i] for i in enough)
        self.protocol, self.seed = protocol, seed
        self.splits = split(len(enough), protocol, seed)
        chosen = [_choose(drawings, i, protocol, seed) for i in enough]
        images = torch.stack(chosen).to(device)  # [A, ways, shots + queries, H, W] uint8
        self.train_images = images[:, :, : protocol.shots].flatten(1, 2).contiguous()
        self.test_images = images[:, :, protocol.shots :].flatten(1, 2).contiguous()
        self._options: dict[str, Any] = {
            "classes": protocol.ways,
            "filters": filters,
            "size": images.shape[-1],
            "norm": norm,
        }
        self.module = Conv4(**self._options).to(device)
        self.layout = Layout.of(self.module)
        self._trunk, self._trunk_layout = headless(self.module), self.layout.without_head()

    @property
    def width(self) -> int:
        """Features that a head sees."""
        return self.module.head.in_features

    def ids(self, which: str) -> tuple[int, ...]:
        """Task ids of a split: `train`, `validation` or `test`."""
        if which not in Splits._fields:
            raise UsageError(f"no split {which!r}; there are {Splits._fields}")
        return getattr(self.splits, which)

    def name(self, task: int) -> str:
        """The alphabet's name."""
        return self.names[task]

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]."""
        fresh = initialize(Conv4(**self._options), generator(seed, "initialization"))
        return self.layout.flatten(fresh).to(self.train_images.device)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> AlphabetBatch:
        """Tasks that walk together, each with the seed of its own stream of batches."""
        return AlphabetBatch(self, ids, seeds)

    def features(self, trunk: Tensor, inputs: Tensor) -> Tensor:
        """Features [N, width] of inputs [N, 1, H, W] at a trunk [m]; pure.

        A row depends on its own input alone where the network's `norm` is `group` or `none`; with `batch` the
        statistics are those of all N.
        """
        found: Tensor = functional_call(self._trunk, self._trunk_layout.unflatten(trunk), (inputs,))
        return found

    def dataset(self, task: int) -> TaskData:
        """An alphabet's drawings without augmentation, and labels; rows go round the characters, a drawing of each."""
        train, labels = _rounds(self.train_images[task], self.protocol.shots)
        test, test_labels = _rounds(self.test_images[task], self.protocol.queries)
        return TaskData(self.names[task], train, labels, test, test_labels, self.protocol.ways)


class AlphabetBatch:
    """T alphabets walking together (a `leap.walk.TaskBatch`)."""

    def __init__(self, family: Alphabets, ids: Sequence[int], seeds: Sequence[int]) -> None:
        device = family.train_images.device
        self.size, self.layout, self._family, self._seeds = len(ids), family.layout, family, tuple(seeds)
        self._rows = torch.tensor(ids, device=device)[:, None]
        places = {task: place for place, task in enumerate(family.ids("train"))}
        self.heads, self.head_count = torch.tensor([places.get(task, 0) for task in ids], device=device), len(places)
        self._epochs: dict[int, tuple[Tensor, Tensor | None]] = {}

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Images [T, B, 1, H, W] and labels [T, B] of inner step `step`: every training image once an epoch."""
        size, total = self._family.protocol.batch_size, self._family.train_images.shape[1]
        first, last = step * size // total, (step * size + size - 1) // total
        drawn = [self._epoch(e) for e in range(first, last + 1)]
        begin = step * size - first * total
        index = torch.cat([order for order, _ in drawn], dim=1)[:, begin : begin + size]
        maps = None
        if drawn[0][1] is not None:
            maps = torch.cat([m for _, m in drawn if m is not None], dim=1)[:, begin : begin + size]
        return self._gather(self._family.train_images, index, maps, theta.dtype), index // self._family.protocol.shots

    def query(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """All test drawings of each task, augmented as in training: MAML's outer batch."""
        images, protocol = self._family.test_images, self._family.protocol
        index = torch.arange(images.shape[1], device=images.device).expand(self.size, -1)
        maps = None
        if protocol.augmentation is not None:
            drawn = [
                draw_affine(index.shape[1], protocol.augmentation, generator(s, "query", step)) for s in self._seeds
            ]
            maps = _sent(torch.stack(drawn), images.device)
        return self._gather(images, index, maps, theta.dtype), index // protocol.queries

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean cross-entropy of one task in nats, and its error in percent."""
        images, labels = batch
        logits = functional_call(self._family.module, self.layout.unflatten(theta), (images,))
        return F.cross_entropy(logits, labels), {"error": 100 * (logits.argmax(-1) != labels).float().mean()}

    @torch.no_grad()
    def score(self, theta: Tensor) -> dict[str, Tensor]:
        """Test error (percent) and loss (nats) [T] at theta [T, n] on unaugmented drawings.

        Normalization uses the statistics of the task's training drawings at that theta, so no test drawing's
        prediction depends on another's.
        """
        protocol = self._family.protocol
        test = torch.arange(self._family.test_images.shape[1], device=theta.device)
        labels, errors, losses = test // protocol.queries, [], []
        for point, row in zip(theta, self._rows[:, 0], strict=True):
            both = torch.cat([self._family.train_images[row], self._family.test_images[row]])
            rows = self._family.train_images.shape[1]
            images = both.unsqueeze(1).to(theta.dtype) / 255
            named = self.layout.unflatten(point)
            logits = functional_call(self._family.module, named, (images, rows))[rows:]
            errors.append(100 * (logits.argmax(-1) != labels).to(theta.dtype).mean())
            losses.append(F.cross_entropy(logits, labels))
        return {"test_error": torch.stack(errors), "test_loss": torch.stack(losses)}

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Order [T, N] and affine maps [T, N, 2, 3] of an epoch, one transfer to the device for both."""
        if epoch not in self._epochs:
            self._epochs = {e: drawn for e, drawn in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = self._draw(epoch)
        return self._epochs[epoch]

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        images, augmentation = self._family.train_images, self._family.protocol.augmentation
        orders, maps = [], []
        for seed in self._seeds:
            stream = generator(seed, "epoch", epoch)
            orders.append(torch.randperm(images.shape[1], generator=stream))
            if augmentation is not None:
                maps.append(draw_affine(images.shape[1], augmentation, stream))
        device = images.device
        return _sent(torch.stack(orders), device), _sent(torch.stack(maps), device) if maps else None

    def _gather(self, source: Tensor, index: Tensor, maps: Tensor | None, dtype: torch.dtype) -> Tensor:
        images = source[self._rows, index].unsqueeze(2)  # [T, B, 1, H, W]
        images = images.to(dtype) / 255
        if maps is None:
            return images
        flat = apply_affine(images.flatten(0, 1), maps.flatten(0, 1).to(images.dtype))
        return flat.unflatten(0, images.shape[:2])


def _sent(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on the device; a GPU fetches it in its turn, and nobody waits."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def _rounds(images: Tensor, drawings: int) -> tuple[Tensor, Tensor]:
    """Bytes [ways * drawings, H, W], grouped by character, as inputs [N, 1, H, W] and labels [N] in rounds."""
    order = torch.arange(len(images), device=images.device).unflatten(0, (-1, drawings)).T.flatten()
    return images[order].unsqueeze(1).float() / 255, order // drawings


def _check(drawings: Drawings, protocol: Protocol, enough: Sequence[int]) -> None:
    most = max((len(images) for images in drawings.images), default=0)
    if not enough:
        raise UsageError(f"no alphabet has {protocol.ways} characters (the largest has {most}); lower tasks.ways")
    available = min(drawings.images[i].shape[1] for i in enough)
    if protocol.shots + protocol.queries > available:
        raise UsageError(
            f"{protocol.shots} training and {protocol.queries} test drawings a character need "
            f"{protocol.shots + protocol.queries}, but there are {available}; lower tasks.shots or tasks.queries"
        )


def _choose(drawings: Drawings, alphabet: int, protocol: Protocol, seed: int) -> Tensor:
    """`ways` characters of an alphabet and their drawings in a random order, [ways, shots + queries, H, W]."""
    images = torch.from_numpy(drawings.images[alphabet])
    stream = generator(seed, "characters", drawings.names[alphabet])
    characters = torch.randperm(len(images), generator=stream)[: protocol.ways]
    orders = [
        torch.randperm(images.shape[1], generator=stream)[: protocol.shots + protocol.queries] for _ in characters
    ]
    return torch.stack([images[c, order] for c, order in zip(characters, orders, strict=True)])
