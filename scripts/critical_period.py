"""The Fisher trace along training, and what a deficit at its beginning leaves behind.

Trains a small network on one data set, on clean images and with blurred ones for the first epochs, and follows the
trace of the Fisher information, which in "Critical learning periods in deep networks" (Achille, Rovere & Soatto 2019,
https://arxiv.org/abs/1711.08856) rises, falls again, and marks by its peak the period in which a deficit does lasting
harm. Every network sees clean images for equally many epochs once its deficit is over, so that one that ends worse was
not trained less. The learning rate is constant: with a falling one, what comes after a long deficit would be learned at
a smaller rate, and the trace would fall with the rate.

    python scripts/critical_period.py --task cifar10 --seeds 0 1 2 --deficit 0 5 15 --out runs/critical-period

LEAP_DATA names the folder with the data sets. Single trainings are kept: a call that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from records import Record, described, kept, spread
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from leap.errors import LeapError, RunError, UsageError
from leap.metrics.along import along, fisher_trace_along, log_spaced
from leap.metrics.statistics import difference_interval, mean_interval
from leap.optim import Optimizer, sgd
from leap.provenance import provenance
from leap.randomness import derive, generator
from leap.report.drawing import GREY, MUTED, PALETTE, write_png
from leap.run import write_atomic
from leap.walk import Fold, walk
from tasks import image_sources
from tasks.image_sets import ImageBatch, ImageSets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLOCK = 4  # pixels each way that the deficit averages
EVEN = 8  # parts of the last stage
ALL = "all"  # the deficit that never ends
EARLY, DECAYED = 0.5, 0.9  # the peak lies before this share of training, and the end below this share of the peak
TRACES = {"trace_train": "training images", "trace_test": "test images"}
COLOURS = (GREY, *PALETTE)


@dataclass(frozen=True)
class Protocol:
    """What all trainings have in common."""

    task: str = "cifar10"
    epochs: int = 60  # on clean images; a deficit comes before them
    train_size: int = 1500
    test_size: int = 1000
    probes: int = 300  # training images, and test images, whose Fisher trace is taken; always clean
    points: int = 24  # where it is taken, about
    batch_size: int = 50
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    widths: tuple[int, ...] = (16, 32, 64)


def blur(images: Tensor) -> Tensor:
    """Images [..., H, W] averaged over blocks of 4 x 4 and enlarged again, bilinearly; each keeps its mean.

    Raises:
        UsageError: height or width is not a multiple of 4.
    """
    if images.shape[-1] % BLOCK or images.shape[-2] % BLOCK:
        raise UsageError(f"blurring needs sides that are multiples of {BLOCK}, got {tuple(images.shape[-2:])}")
    small = F.avg_pool2d(images.flatten(0, -4), BLOCK)
    return F.interpolate(small, scale_factor=BLOCK, mode="bilinear", align_corners=False).reshape(images.shape)


class Deficit:
    """The tasks as they are, but blurred for the first `steps` inner steps (a `leap.walk.TaskBatch`)."""

    def __init__(self, tasks: ImageBatch, steps: int) -> None:
        self.size, self.layout, self.loss, self.tasks, self.steps = tasks.size, tasks.layout, tasks.loss, tasks, steps

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """As the tasks'. Blurring the standardized images or the images themselves is the same, both being affine."""
        images, labels, classes = self.tasks.sample(theta, step)
        return blur(images) if step < self.steps else images, labels, classes


def checkpoints(blurred: int, clean: int, count: int) -> list[int]:
    """Inner steps to measure at: log-spaced from the start, and again from where the deficit ends.

    The last stage is cut into equal parts besides, since late log-spaced steps are too far apart to place a peak.
    """
    last = clean or blurred
    stage = {*log_spaced(last, max(3, count - EVEN)), *(round(last * i / EVEN) for i in range(EVEN))}
    if not blurred or not clean:
        return sorted(stage)
    return sorted({*log_spaced(blurred, max(3, count // 2)), *(blurred + step for step in stage)})


def train(protocol: Protocol, seed: int, deficit: str) -> Record:
    """One training from a random initialization, and what was measured along it."""
    p = protocol
    family = ImageSets(
        image_sources.load([p.task]), seed=seed, train_size=p.train_size, test_size=p.test_size,
        batch_size=p.batch_size, widths=p.widths,
    )  # fmt: skip
    each = p.train_size / p.batch_size  # steps an epoch
    blurred = round((p.epochs if deficit == ALL else int(deficit)) * each)
    clean = 0 if deficit == ALL else round(p.epochs * each)
    at = checkpoints(blurred, clean, p.points)
    tasks = Deficit(family.batch([0], [derive(seed, "critical period")]), blurred)
    try:
        found = walk(
            tasks, family.initial(seed)[None], steps=blurred + clean, optimizer=inner(p),
            folds=measurements(family, tasks.tasks, at, p.probes, seed), execution="sequential",
        ).results  # fmt: skip
    except ValueError as error:  # the Fisher trace refuses what is not finite
        raise RunError(f"seed {seed}, deficit {deficit}: {error}. Training diverged? Lower --lr {p.lr}") from error
    about = {"protocol": described(p), "seed": seed, "deficit": deficit, "epochs": [step / each for step in at]}
    return about | {name: result[0].tolist() for name, result in found.items()}


def inner(p: Protocol) -> Optimizer:
    """What takes the steps."""
    try:
        return sgd(p.lr, p.momentum, p.weight_decay)
    except ValueError as error:
        raise UsageError(str(error)) from error


def measurements(family: ImageSets, tasks: ImageBatch, at: Sequence[int], probes: int, seed: int) -> dict[str, Fold]:
    """Folds: Fisher traces and losses, all on clean images that stay the same along the walk."""
    data = family.dataset(0)

    def logits(theta: Tensor, inputs: Tensor) -> Tensor:
        out: Tensor = functional_call(family.module, family.layout.unflatten(theta), (inputs,))
        return out

    def loss(theta: Tensor) -> Tensor:
        return F.cross_entropy(logits(theta[0], data.inputs), data.labels)[None]

    def trace(name: str, inputs: Tensor) -> Fold:
        return fisher_trace_along(logits, inputs[None, :probes], at, generator=generator(seed, "labels", name))

    return {
        "trace_train": trace("train", data.inputs),
        "trace_test": trace("test", data.test_inputs),
        "train_loss": along(loss, at),
        "test_error": along(lambda theta: tasks.score(theta)["test_error"], at),
    }


def peak(record: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """When a trace is highest (a share of training), its last value as a share of that, and the training loss there."""
    values, epochs = record[name], record["epochs"]
    highest = int(np.argmax(values))
    return epochs[highest] / epochs[-1], values[-1] / values[highest], record["train_loss"][highest]


def summary(records: Sequence[Record]) -> Record:
    """Peaks and final errors by deficit (values, mean, 95% interval), and in which seeds the trace peaks early."""
    groups = grouped(records)
    rows = {deficit: described_group(group, groups.get("0", group)) for deficit, group in groups.items()}
    verdicts = {name: [passes(record, name) for record in groups.get("0", [])] for name in TRACES}
    return {"deficits": rows, "early_peak_then_decay": verdicts}


def described_group(group: Sequence[Record], control: Sequence[Record]) -> Record:
    """What the trainings of one deficit gave, and their error less that of the control, paired by seed."""
    errors, clean = ([record["test_error"][-1] for record in part] for part in (group, control))
    row: Record = {"seeds": [record["seed"] for record in group], "test_error": spread(errors)}
    row["excess_error"] = asdict(difference_interval(errors, clean, paired=True))
    row["train_loss"] = spread([record["train_loss"][-1] for record in group])
    for name in TRACES:
        found = zip(*(peak(record, name) for record in group), strict=True)
        row |= {f"{name}_{part}": spread(one) for part, one in zip(("peak", "end", "loss"), found, strict=True)}
    return row


def passes(record: Mapping[str, Any], name: str) -> bool:
    """Whether the trace peaks in the first half of training and has fallen by a tenth or more at its end."""
    share, end, _ = peak(record, name)
    return share < EARLY and end < DECAYED


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by deficit, the seeds in the same order in each."""
    return {d: [r for r in records if r["deficit"] == d] for d in dict.fromkeys(r["deficit"] for r in records)}


def table(found: Mapping[str, Any]) -> str:
    """The summary for a terminal, one line a deficit."""
    columns = {
        "test_error": "test error %", "excess_error": "less the first's", "train_loss": "train loss",
        "trace_train_peak": "peak (train)", "trace_train_loss": "loss there", "trace_train_end": "end/peak",
        "trace_test_peak": "peak (test)", "trace_test_end": "end/peak",
    }  # fmt: skip
    lines = [("deficit", *columns.values())]
    for deficit, row in found["deficits"].items():
        lines.append((deficit, *(bracketed(row[key], 1 if "error" in key else 2) for key in columns)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    for name, verdicts in found["early_peak_then_decay"].items():
        text.append(f"early peak, then decay, on {TRACES[name]}: {sum(verdicts)} of {len(verdicts)} seeds")
    return "\n".join(text)


def bracketed(row: Mapping[str, Any], digits: int) -> str:
    """`mean [low, high]`, or the mean alone of a single seed."""
    mean, *ends = (f"{row[key]:.{digits}f}" for key in ("mean", "low", "high") if row[key] is not None)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def draw(figure: Figure, records: Sequence[Record], protocol: Protocol) -> None:
    """Traces and loss of clean training, traces with deficits, and the final error by length of the deficit."""
    groups = grouped(records)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    clean = groups.get("0") or next(iter(groups.values()))
    for (name, label), colour in zip(TRACES.items(), PALETTE, strict=False):
        line(first, clean, name, colour, label)
    line(second, clean, "train_loss", PALETTE[2], "training loss")
    first.set(title="Fisher trace, clean training", ylabel="tr F (nats)")
    second.set(title="Loss on the training images, clean training", ylabel="nats an image")
    for axes in (first, second):
        axes.axvline(clean[0]["epochs"][-1] / 2, color=MUTED, linestyle=":", linewidth=1)
        axes.set(xscale="log", xlabel="epoch (dotted: half of training)")
        axes.xaxis.set_major_formatter("{x:g}")
    for (deficit, group), colour in zip(groups.items(), COLOURS, strict=False):
        line(third, group, "trace_train", colour, named(deficit))
        if deficit not in ("0", ALL):
            third.axvline(int(deficit), color=colour, linestyle=":", linewidth=1)
    third.set(
        title="Fisher trace on clean training images", ylabel="tr F (nats)", xlabel="epoch (dotted: deficit ends)"
    )
    draw_errors(fourth, groups)
    for axes in (first, second, third):
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    for axes in (first, third):
        axes.legend(fontsize=8)
    size, seeds = f"{protocol.train_size} training images", "one seed" if len(clean) == 1 else f"{len(clean)} seeds"
    figure.suptitle(
        f"{protocol.task}, {size}, {seeds}; faint lines: single seeds; bars: 95% intervals", fontsize=9, color=MUTED
    )


def line(axes: Axes, group: Sequence[Record], name: str, colour: str, label: str) -> None:
    """Mean over seeds, and every seed faintly; the start has no place on a logarithmic axis and is left out."""
    x, values = np.array(group[0]["epochs"])[1:], np.array([record[name] for record in group])[:, 1:]
    axes.plot(x, values.T, color=colour, alpha=0.35, linewidth=0.8)
    axes.plot(x, values.mean(axis=0), color=colour, label=label, marker="o", markersize=3, markeredgewidth=0)


def draw_errors(axes: Axes, groups: Mapping[str, Sequence[Record]]) -> None:
    """Final test error by deficit: mean and interval, and a small mark a seed."""
    for place, (group, colour) in enumerate(zip(groups.values(), COLOURS, strict=False)):
        values = [record["test_error"][-1] for record in group]
        found, beside = mean_interval(values), [place + 0.13] * len(values)
        axes.plot(beside, values, "o", color=colour, alpha=0.55, markersize=3.5, markeredgewidth=0)
        if found.low is not None and found.high is not None:
            axes.plot([place, place], [found.low, found.high], color=colour, linewidth=2.2)
        axes.plot([place], [found.mean], "o", color=colour, markersize=8, markeredgewidth=0)
    axes.set_xticks(range(len(groups)), [named(deficit) for deficit in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set(title="Error on clean test images at the end", ylabel="%", xlabel="blurred at the start")
    axes.grid(visible=False, axis="x")


def named(deficit: str) -> str:
    """A deficit for a legend."""
    return {"0": "never", ALL: "always"}.get(deficit, f"{deficit} epochs")


def arguments(given: Sequence[str]) -> tuple[Protocol, list[int], list[str], Path]:
    """Protocol, seeds, deficits and the JSON file to write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Protocol()).items():
        many = isinstance(default, tuple)
        option: Record = {"type": int, "nargs": "+"} if many else {"type": type(default)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=f"default: {default}", **option)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--deficit", nargs="+", default=["0", "5", "15", "40", ALL], help="epochs, or 'all' of them")
    parser.add_argument("--out", type=Path, default=Path("runs/critical-period"), help="a folder, or a .json file")
    found = vars(parser.parse_args(given))
    seeds, deficits, out = (found.pop(name) for name in ("seeds", "deficit", "out"))
    if wrong := [value for value in deficits if value != ALL and not value.isdecimal()]:
        raise UsageError(f"--deficit takes numbers of epochs and {ALL!r}, got {wrong[0]!r}")
    for name in ("epochs", "train_size", "test_size", "probes", "batch_size"):
        if found[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {found[name]}")
    if found["probes"] > min(found["train_size"], found["test_size"]):
        raise UsageError(f"--probes must be at most --train-size and --test-size, got {found['probes']}")
    deficits = list(dict.fromkeys(value if value == ALL else str(int(value)) for value in deficits))
    out = out if out.suffix == ".json" else out / "critical-period.json"
    return Protocol(**found | {"widths": tuple(found["widths"])}), list(dict.fromkeys(seeds)), deficits, out


def main(given: Sequence[str]) -> None:
    """Train what is missing; print the table; write the JSON file and the picture beside it."""
    protocol, seeds, deficits, out = arguments(given)
    records = []
    for seed in seeds:
        for deficit in deficits:
            path = out.with_suffix("") / f"seed{seed}-deficit-{deficit}.json"
            records.append(kept(path, protocol, partial(train, protocol, seed, deficit)))
            print(f"seed {seed}, deficit {deficit}: {records[-1]['test_error'][-1]:.1f}% test error", file=sys.stderr)
    found = summary(records)
    about = provenance("cpu") | {"command": " ".join(["python scripts/critical_period.py", *given])}
    document = {"format": 1, "protocol": described(protocol), **found, "runs": records, "provenance": about}
    write_atomic(out, (json.dumps(document, indent=1) + "\n").encode())
    picture = write_png(out.with_suffix(".png"), 9.2, 6.4, partial(draw, records=records, protocol=protocol))
    print(f"{table(found)}\n{out}\n{picture}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LeapError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
