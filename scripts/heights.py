"""What the height of Leap's path weighs: its loss term beside its parameter term, and its direction beside Reptile's.

Leap's meta-gradient is a sum of two: of the inner steps, which for the energy is twice Reptile's, and of gradients
weighed by the rises of f. Walks every game of a configuration's pretraining from random initializations, with its inner
settings, and prints for every metric and height (`leap.heights`):

- loss / parameters: the norm of the second sum over that of the first; median of all walks, smallest and largest.
- cosine with Reptile: of a walk's meta-gradients (mean over games) and of their means over games.
- uneven: the largest game's meta-gradient over the smallest's, in norm; median over seeds.
- rises: lag-1 autocorrelation of the rises of f; median of all walks. White noise in f has -0.5, a trend more.

    python scripts/heights.py tiny-games --seeds 0 1 2 3 4 [--gradient-clip 0.5] [--train.inner_steps 50 ...]

With --gradient-clip every row stands a second time, with gradients shortened to that norm before they enter. Brackets
are 95% t-intervals over seeds. Any tasks will do; those that record no return leave out the height `return`.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from leap import heights, learners
from leap.cli import build, configuration
from leap.cli.measure_text import columns
from leap.cli.settings import Settings
from leap.errors import LeapError
from leap.metrics.statistics import mean_interval
from leap.randomness import derive
from leap.segments import Segment, over_segments
from leap.walk import Fold, walk

HEAD = (
    "metric", "height", "gradients", "loss / parameters", "cosine with Reptile: a walk", "of the means", "uneven",
    "rises",
)  # fmt: skip
METRICS: tuple[Literal["energy", "length"], ...] = ("energy", "length")
Row = tuple[str, ...]  # metric, height, what is done to gradients


def rises(name: heights.HeightName) -> Fold:
    """The rises of f along a walk, [T, K]."""

    def add(total: list[Tensor], segment: Segment) -> list[Tensor]:
        return [*total, segment.rise]

    f = heights.height(name)
    return over_segments(lambda theta0: [], add, lambda total, end: torch.stack(total, dim=1), height=f)


def still(name: heights.HeightName, metric: Any) -> Fold:
    """The parameter term of Leap's meta-gradient [T, m]: Leap, told that the loss has no gradient."""
    plain = learners.leap(metric, height=name)
    return plain._replace(step=lambda state, s: plain.step(state, s._replace(grad=torch.zeros_like(s.grad))))


def autocorrelation(series: Tensor) -> Tensor:
    """Of neighbours within each row [T, K]: [T]."""
    apart = series - series.mean(dim=1, keepdim=True)
    return (apart[:, 1:] * apart[:, :-1]).sum(dim=1) / apart.square().sum(dim=1)


def walked(settings: Settings, seed: int, clip: float | None) -> dict[Row, dict[str, Any]]:
    """By metric, height and what is done to gradients: what one seed says, single numbers or one a game."""
    family = build.family(settings, build.device(settings.device))
    ids = list(family.ids("train"))
    tasks = family.batch(ids, [derive(seed, "heights", task) for task in ids])
    options: dict[str, Any] = {
        "steps": settings.train.inner_steps, "optimizer": build.inner(settings.inner, settings.train.inner_steps),
        "execution": build.execution(settings.train.execution, build.device(settings.device)),
    }  # fmt: skip
    names = [name for name in heights.HEIGHTS if name != "return" or settings.tasks.name in ("atari", "tiny_games")]
    clips = {"as they are": None} | ({} if clip is None else {f"to {clip:g}": clip})
    rows, folds = list[Row](), {"reptile": learners.reptile()}
    for metric, name, (told, norm) in product(METRICS, names, clips.items()):
        rows.append((metric, name, told))
        folds[" ".join(rows[-1])] = learners.leap(metric, height=name, gradient_clip=norm)
        folds |= {f"{metric} {name}": still(name, metric), name: rises(name)}
    found = walk(tasks, family.initial(seed), folds=folds, **options).results
    return {row: said(found[" ".join(row)], found[" ".join(row[:2])], found["reptile"], found[row[1]]) for row in rows}


def said(whole: Tensor, parameters: Tensor, reptile: Tensor, rise: Tensor) -> dict[str, Any]:
    """Of meta-gradients [T, m], their parameter terms, Reptile's, and rises [T, K]."""
    norms = whole.norm(dim=1)
    return {
        "ratio": ((whole - parameters).norm(dim=1) / parameters.norm(dim=1)).tolist(),
        "apart": float(cosine_similarity(whole, reptile).mean()),
        "together": float(cosine_similarity(whole.mean(0), reptile.mean(0), dim=0)),
        "uneven": float(norms.max() / norms.min()),
        "rises": autocorrelation(rise).tolist(),
    }


def table(seeds: Sequence[dict[Row, dict[str, Any]]]) -> list[str]:
    """All seeds, as lines of text."""
    rows: list[Sequence[str]] = [HEAD]
    for row in seeds[0]:
        own: dict[str, list[float]] = defaultdict(list)
        for told in seeds:
            for key, value in told[row].items():
                own[key] += value if isinstance(value, list) else [value]
        ratio = own["ratio"]
        rows.append((
            *row, f"{median(ratio):.2g} ({min(ratio):.2g} to {max(ratio):.2g})", interval(own["apart"]),
            interval(own["together"]), f"{median(own['uneven']):.1f}", f"{median(own['rises']):.2f}",
        ))  # fmt: skip
    return columns(rows)


def interval(values: Sequence[float]) -> str:
    """Mean and interval over seeds."""
    found = mean_interval(values)
    return f"{found.mean:.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if found.count > 1 else "")


def main(given: Sequence[str]) -> None:
    """Walk and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a settings file, or the name of a shipped one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--gradient-clip", type=float, help="see learner.gradient_clip")
    own, overrides = parser.parse_known_args(given)
    settings = configuration.load(Settings, [own.file], overrides)
    seeds = []
    for seed in own.seeds:
        seeds.append(walked(settings, seed, own.gradient_clip))
        print(f"seed {seed}", file=sys.stderr)
    print("\n".join(table(seeds)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LeapError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
