"""Columns side by side: networks of one kind, each of whose stages also reads the stages before in other columns.

One column moves and the others stay as they are. Columns may read each other in circles, so all of them are computed
together, stage by stage and on the same images.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from leap.stages import Staged

MOST = 2**27
"""Most numbers in the convolutions of columns that are computed at once: half a gigabyte in float32."""


def lateral_size(network: Staged) -> int:
    r"""Entries of the laterals from one column to another, :math:`L = \sum_{i \ge 1} C_{i-1} C_i`."""
    return sum(a * b for a, b in itertools.pairwise(network.channels))


def by_stage(network: Staged, laterals: Tensor) -> list[Tensor]:
    """Laterals of one column, or of several, as matrices.

    Args:
        network: The columns' network.
        laterals: [..., R L] from R columns: by stage, and within a stage by channel made, column read, channel read.

    Returns:
        For each stage but the first [..., C_i, R, C_{i-1}].
    """
    pairs = list(itertools.pairwise(network.channels))
    count = laterals.shape[-1] // lateral_size(network) if pairs else 0
    parts = laterals.split([count * a * b for a, b in pairs], dim=-1)
    return [part.unflatten(-1, (b, count, a)) for (a, b), part in zip(pairs, parts, strict=True)]


class Frozen:
    """F columns that stay as they are.

    Args:
        network: The columns' network.
        trunks: [F, trunk].
        laterals: What each reads from the others, [F, (R - 1) L], as in `by_stage`.
        numbers: The R columns that laterals are numbered by, in the order in which they stand here: the F frozen ones
            first, then the one that moves, if they read it.

    Where the network has a true `abreast`, its stages take parameters of several columns joined along their first axis,
    and a stage of all columns is one call, or as few as `MOST` allows.
    """

    def __init__(self, network: Staged, trunks: Tensor, laterals: Tensor, numbers: list[int]) -> None:
        self._network, self._count = network, len(trunks)
        layout = network.layout
        headless = torch.cat([trunks, trunks.new_zeros(self._count, layout.n - layout.trunk)], dim=1)
        self._named = {name: value.contiguous() for name, value in layout.unflatten(headless).items()}  # [F, ...]
        self._mixing = [_filters(part, numbers) for part in by_stage(network, laterals)]
        self._reads_moving = len(numbers) > self._count

    @torch.no_grad()
    def first(self, images: Tensor, rows: int | None) -> Tensor:
        """The first stage [B, F C_0, H // 2, W // 2] of images [B, c, H, W]."""
        return _joined([self._network.stage(0, self._joint(a, b), images, rows) for a, b in self._groups(0, images)])

    @torch.no_grad()  # a column gets no gradient through what others make of it
    def next(self, number: int, x: Tensor, moving: Tensor, rows: int | None) -> Tensor:
        """Stage `number` [B, F C_i, ...] from the one before, [B, F C_{i-1}, ...], and the moving column's."""
        read = torch.cat([x, moving], dim=1) if self._reads_moving else x
        channels, filters, found = self._network.channels, self._mixing[number - 1], []
        for a, b in self._groups(number, x):
            plus = F.conv2d(read, filters[a * channels[number] : b * channels[number]])
            own = x[:, a * channels[number - 1] : b * channels[number - 1]]
            found.append(self._network.stage(number, self._joint(a, b), own, rows, plus))
        return _joined(found)

    def _groups(self, number: int, x: Tensor) -> list[tuple[int, int]]:
        """Columns from .. to that are computed in one call each."""
        each = x.shape[0] * self._network.channels[number] * x.shape[2] * x.shape[3]
        size = max(1, MOST // each) if getattr(self._network, "abreast", False) else 1
        return [(a, min(a + size, self._count)) for a in range(0, self._count, size)]

    def _joint(self, first: int, last: int) -> dict[str, Tensor]:
        """Parameters of columns `first` to `last` - 1, joined."""
        return {name: value[first:last].flatten(0, 1) for name, value in self._named.items()}


def logits(network: Staged, frozen: Frozen | None, vector: Tensor, images: Tensor, rows: int | None = None) -> Tensor:
    r"""Logits of a column that reads others.

    .. math:: h_i = f_i\Bigl(W_i h_{i-1} + \sum_{j} U_i^{j} h_{i-1}^{j}\Bigr)

    The first stage reads the image and nothing else, and the head reads its own column.

    Args:
        network: The columns' network.
        frozen: The columns it reads; None: there are none.
        vector: [trunk | laterals from each of them | head].
        images: [B, c, H, W].
        rows: As in `leap.stages.Staged`.

    Returns:
        [B, classes]. What the others compute from this column carries no gradient back to it.
    """
    layout, last = network.layout, len(network.channels) - 1
    trunk, laterals, head = vector.split([layout.trunk, len(vector) - layout.n, layout.n - layout.trunk])
    named = layout.unflatten(torch.cat([trunk, head]))
    x = network.stage(0, named, images, rows)
    if frozen is None:
        for number in range(1, last + 1):
            x = network.stage(number, named, x, rows)
        return network.head(named, x)
    around = frozen.first(images, rows)
    for number, part in enumerate(by_stage(network, laterals), 1):
        plus = F.conv2d(around, part.flatten(1)[:, :, None, None])
        if number < last:  # nobody reads the others' last stage
            around = frozen.next(number, around, x, rows)
        x = network.stage(number, named, x, rows, plus)
    return network.head(named, x)


def _filters(laterals: Tensor, numbers: list[int]) -> Tensor:
    """What F columns read, [F, C, R - 1, c], as filters of 1 x 1 over R columns in the order of `numbers`.

    Returns:
        [F C, R c, 1, 1]; what a column would read of itself is zero.
    """
    count, made, _, read = laterals.shape
    whole = laterals.new_zeros(count, made, len(numbers), read)
    for own, given, number in zip(whole, laterals, numbers[:count], strict=True):
        own[:, :number], own[:, number + 1 :] = given[:, :number], given[:, number:]
    return whole[:, :, numbers].reshape(count * made, len(numbers) * read, 1, 1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
