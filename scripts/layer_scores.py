"""Layer by layer: do a layer's H-score on a task, and the loss of a linear probe on it, agree which layer is better?

Trains a network on one data set, reads every layer out on others, and compares the H-score of the read-outs on training
data with the log-loss that a linear classifier fitted to the same data has on test data: figure 2a of "An
information-theoretic approach to transferability in task transfer learning" (Bao et al. 2019,
https://ieeexplore.ieee.org/document/8803726), small. All layers have as many channels and are averaged over as many
squares, so that all read-outs have as many features: a score grows with them.

    python scripts/layer_scores.py --source fashion --targets mnist kmnist --seeds 0 1 2 --out runs/layer-scores

LEAP_DATA names the folder with the data sets. Single seeds are kept: a call that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from records import Record, described, kept, spread
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from leap.errors import LeapError, RunError, UsageError
from leap.layout import Layout
from leap.measure.problem import TaskData
from leap.metrics.correlation import pearson, spearman
from leap.metrics.hscore import h_score_report
from leap.optim import cosine, sgd
from leap.provenance import provenance
from leap.randomness import derive, generator
from leap.report.drawing import MUTED, PALETTE, write_png
from leap.run import write_atomic
from leap.walk import walk
from tasks import image_sources
from tasks.image_sets import ImageBatch, ImageSets
from tasks.models import GroupNorm, initialize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHUNK = 500  # images a forward pass
GOAL = 0.9
SCORES = {"h_score": "H", "adjusted": "H above chance", "shrunk": "H, Ledoit-Wolf"}


@dataclass(frozen=True)
class Protocol:
    """What all seeds have in common."""

    source: str = "fashion"
    targets: tuple[str, ...] = ("mnist", "kmnist", "notmnist", "cifar100_coarse")
    source_size: int = 5000  # training images of the source
    epochs: int = 10
    batch_size: int = 50
    lr: float = 0.02
    channels: int = 32  # of every layer
    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 2, 1)  # of the layers
    grid: int = 2  # squares each way that a layer is averaged over
    train_size: int = 4000  # of each target: for scores and for fitting probes
    test_size: int = 1000  # of each target: for the probes' log-loss
    decay: float = 10.0  # of a probe's weights on standardized features, beside the sum of losses


class Layered(nn.Module):
    """3x3 convolutions, each with group normalization and a rectifier, and a linear head on the last one's read-out."""

    def __init__(self, classes: int, channels: int, strides: Sequence[int], grid: int) -> None:
        super().__init__()
        widths = [3, *[channels] * len(strides)]
        self.grid = grid
        self.convs = nn.ModuleList(nn.Conv2d(a, channels, 3, s, 1) for a, s in zip(widths, strides, strict=False))
        self.norms = nn.ModuleList(GroupNorm(math.gcd(channels, 8), channels) for _ in strides)
        self.head = nn.Linear(channels * grid**2, classes)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Read-outs [B, channels * grid * grid] of every layer, averaged over squares."""
        found = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
            found.append(F.adaptive_avg_pool2d(x, self.grid).flatten(1))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.head(self.layers(x)[-1])


class Lesson:
    """A data set learned by this network instead of the family's own (a `leap.walk.TaskBatch`)."""

    size = 1

    def __init__(self, module: nn.Module, tasks: ImageBatch) -> None:
        self.module, self.layout, self.sample = module, Layout.of(module), tasks.sample

    def loss(self, theta: Tensor, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean cross-entropy in nats."""
        logits = functional_call(self.module, self.layout.unflatten(theta), (batch[0],))
        return F.cross_entropy(logits, batch[1]), {}


def train(p: Protocol, seed: int) -> tuple[Layered, float]:
    """The network trained on the source, and its test error in percent."""
    family = ImageSets(
        image_sources.load([p.source]), seed=seed, train_size=p.source_size, test_size=p.test_size,
        batch_size=p.batch_size,
    )  # fmt: skip
    data = family.dataset(0)
    module = Layered(data.classes, p.channels, p.strides, p.grid)
    initialize(module, generator(seed, "layer scores", "initialization"))
    lesson = Lesson(module, family.batch([0], [derive(seed, "layer scores")]))
    steps = round(p.epochs * p.source_size / p.batch_size)
    optimizer = sgd(p.lr, 0.9, 5e-4, schedule=cosine(steps))
    start = lesson.layout.flatten(module)[None]
    theta = walk(lesson, start, steps=steps, optimizer=optimizer, execution="sequential").theta[0]
    if not bool(theta.isfinite().all()):
        raise RunError(f"seed {seed}: training on {p.source} diverged; lower --lr {p.lr}")
    module.load_state_dict(lesson.layout.unflatten(theta))
    with torch.no_grad():
        logits = torch.cat([module(part) for part in data.test_inputs.split(CHUNK)])
    return module, 100 * float((logits.argmax(-1) != data.test_labels).double().mean())


@torch.no_grad()
def read_out(module: Layered, inputs: Tensor) -> list[Tensor]:
    """Read-outs [N, k] of every layer, in float64."""
    parts = [module.layers(part) for part in inputs.split(CHUNK)]
    return [torch.cat(layer).double() for layer in zip(*parts, strict=True)]


def measure(p: Protocol, seed: int) -> Record:
    """One seed: the source trained, and every layer scored and probed on every target."""
    module, error = train(p, seed)
    family = ImageSets(image_sources.load(p.targets), seed=seed, train_size=p.train_size, test_size=p.test_size)
    targets = {name: of_layers(module, family.dataset(task), p.decay) for task, name in enumerate(family.names)}
    return {"protocol": described(p), "seed": seed, "source_error": error, "targets": targets}


def of_layers(module: Layered, data: TaskData, decay: float) -> Record:
    """Scores and probe of each layer on one target, as lists over layers."""
    rows = [
        {**scores(train, data.labels), **probe(train, data.labels, test, data.test_labels, decay)}
        for train, test in zip(read_out(module, data.inputs), read_out(module, data.test_inputs), strict=True)
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def scores(features: Tensor, labels: Tensor) -> dict[str, float]:
    """The H-score with what chance gives and above chance, and shrunk."""
    plain = h_score_report(features, labels)
    shrunk = h_score_report(features, labels, shrinkage="ledoit-wolf")
    return {
        "h_score": float(plain.score), "rank": int(plain.rank), "null": float(plain.null),
        "adjusted": float(plain.adjusted), "shrunk": float(shrunk.score),
    }  # fmt: skip


def probe(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, decay: float) -> Record:
    """Log-loss (nats) and error (percent) on test data of multinomial logistic regression fitted to training data."""
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(0), features.std(0).clamp(min=1e-9)  # a dead feature stays at zero
    train, test = (((part - mean) / std).numpy() for part in (features, test_features))
    fitted = LogisticRegression(C=1 / decay, max_iter=2000).fit(train, labels.numpy())
    logits = torch.from_numpy(fitted.decision_function(test)).double()
    if logits.dim() == 1:  # of two classes, scikit-learn gives the second's alone
        logits = torch.stack([torch.zeros_like(logits), logits], 1)
    return {
        "log_loss": float(F.cross_entropy(logits, test_labels)),
        "error": 100 * float((logits.argmax(-1) != test_labels).double().mean()),
    }


def summary(records: Sequence[Record]) -> Record:
    """Agreement of each score with the probe over layers: a target's value for every seed, with mean and interval."""
    found: Record = {}
    for target in records[0]["targets"]:
        tables = [record["targets"][target] for record in records]
        rows: Record = {name: spread([agreement(spearman, table, name) for table in tables]) for name in SCORES}
        rows["pearson"] = spread([agreement(pearson, table, "h_score") for table in tables])
        found[target] = rows
    return found


def agreement(correlation: Callable[[Any, Any], float], table: Mapping[str, Sequence[float]], score: str) -> float:
    """Correlation over layers between a score and minus the log-loss."""
    return correlation(table[score], [-loss for loss in table["log_loss"]])


def lines(records: Sequence[Record], found: Mapping[str, Any]) -> str:
    """Means over seeds of every layer's figures, and how well scores and log-loss agree in each seed."""
    text = [f"source error {fmean([record['source_error'] for record in records]):.1f}%"]
    names = ("h_score", "null", "adjusted", "shrunk", "rank", "log_loss", "error")
    for target, rows in found.items():
        tables = [record["targets"][target] for record in records]
        text += ["", f"{target:16s}" + "".join(f"{name:>10s}" for name in names)]
        for layer in range(len(tables[0]["log_loss"])):
            cells = (fmean([table[name][layer] for table in tables]) for name in names)
            text.append(f"  layer {layer + 1:<8d}" + "".join(f"{cell:10.3f}" for cell in cells))
        for name, row in rows.items():
            label = "Pearson of H" if name == "pearson" else f"Spearman of {SCORES[name]}"
            text.append(f"  {label} and -log-loss: {row['mean']:.3f} ({', '.join(f'{v:.3f}' for v in row['values'])})")
    every = [value for rows in found.values() for value in rows["h_score"]["values"]]
    met = sum(value >= GOAL for value in every)
    text += ["", f"Spearman of H at least {GOAL} in {met} of {len(every)} (target, seed), mean {fmean(every):.3f}"]
    return "\n".join(text)


def draw(figure: Figure, records: Sequence[Record], found: Mapping[str, Any]) -> None:
    """H-score against log-loss, a panel a target, a colour a seed, a point a layer with its number."""
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (target, rows) in zip(panels, found.items(), strict=True):
        for record, colour in zip(records, PALETTE * len(records), strict=False):
            table = record["targets"][target]
            axes.plot(
                table["h_score"], table["log_loss"], "o", color=colour, markersize=9, markeredgewidth=0, alpha=0.8
            )
            for layer, point in enumerate(zip(table["h_score"], table["log_loss"], strict=True)):
                axes.annotate(str(layer + 1), point, color="white", fontsize=6, ha="center", va="center")
        axes.set(title=f"{target}: {rows['h_score']['mean']:.2f}", xlabel="H-score of a layer")
    panels[0].set_ylabel("log-loss of a linear probe, nats")
    said = "numbers: layers; colours: seeds; above: mean over seeds of Spearman(H, -log-loss) over layers"
    figure.suptitle(said, fontsize=8, color=MUTED)


def arguments(given: Sequence[str]) -> tuple[Protocol, list[int], Path]:
    """Protocol, seeds and the JSON file to write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Protocol()).items():
        many = isinstance(default, tuple)
        option: Record = {"type": type(default[0]), "nargs": "+"} if many else {"type": type(default)}
        shown = " ".join(map(str, default)) if many else default
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=f"default: {shown}", **option)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/layer-scores"), help="a folder, or a .json file")
    found = vars(parser.parse_args(given))
    seeds, out = (found.pop(name) for name in ("seeds", "out"))
    protocol = Protocol(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})
    check(protocol)
    return protocol, list(dict.fromkeys(seeds)), out if out.suffix == ".json" else out / "layer-scores.json"


def check(p: Protocol) -> None:
    """Raises UsageError for what cannot be meant."""
    for name in ("epochs", "batch_size", "channels", "grid", "source_size", "test_size"):
        if getattr(p, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(p, name)}")
    for name in ("lr", "decay"):
        if not 0 < getattr(p, name) < math.inf:
            raise UsageError(f"--{name} must be above 0 and finite, got {getattr(p, name)}")
    if len(p.strides) < 2 or min(p.strides) < 1:
        raise UsageError(f"--strides names a stride of at least 1 for each of at least two layers, got {p.strides}")
    if math.prod(p.strides) * p.grid > image_sources.SIDE:
        raise UsageError(
            f"strides {p.strides} leave fewer than {p.grid} x {p.grid} places of a picture of {image_sources.SIDE} x "
            f"{image_sources.SIDE}; take fewer strides or a smaller --grid"
        )
    if p.train_size <= 2 * p.channels * p.grid**2:
        raise UsageError(
            f"--train-size must be above twice the features of a layer ({p.channels * p.grid**2}), where H-scores say "
            f"little else but how many features there are; got {p.train_size}"
        )


def main(given: Sequence[str]) -> None:
    """Measure the seeds that are missing; print the table; write the JSON file and the picture beside it."""
    protocol, seeds, out = arguments(given)
    records = []
    for seed in seeds:
        path = out.with_suffix("") / f"seed{seed}.json"
        records.append(kept(path, protocol, partial(measure, protocol, seed)))
        print(f"seed {seed}: {records[-1]['source_error']:.1f}% error on {protocol.source}", file=sys.stderr)
    found = summary(records)
    about = provenance("cpu") | {"command": " ".join(["python scripts/layer_scores.py", *given])}
    document = {"format": 1, "protocol": described(protocol), "agreement": found, "runs": records, "provenance": about}
    write_atomic(out, (json.dumps(document, indent=1) + "\n").encode())
    width = 2.6 * max(2, len(found))
    picture = write_png(out.with_suffix(".png"), width, 3.1, partial(draw, records=records, found=found))
    print(f"{lines(records, found)}\n{out}\n{picture}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LeapError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
