"""The sections of a dashboard: what is worth seeing of what the runs have logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from leap.dashboard.logged import Logged, Measured
from leap.dashboard.specification import CONFIGURATION, FAMILY, LEARNER, Dashboard, Kind, Missing, Panel, Section

Made = Iterator[Panel]
COUNT = "evaluation/pretraining_tasks"


class _Nothing(Exception):
    """There is nothing to show; says why."""


def dashboard(logged: Logged, title: str | None = None) -> Dashboard:
    """The dashboard of these runs; what they have not logged is named in `missing`.

    Args:
        logged: What `leap.dashboard.logged.read_logged` found.
        title: By default the group and the family.
    """
    sections, missing = [], []
    for name, made in SECTIONS.items():
        try:
            panels = tuple(made(logged))
        except _Nothing as reason:
            missing.append(Missing(name, str(reason)))
        else:
            sections.append(Section(name, panels))
    return Dashboard(
        title=title or f"{logged.group} ({logged.family})",
        project=logged.project,
        entity=logged.entity,
        group=logged.group,
        family=logged.family,
        learners=logged.learners,
        seeds=logged.seeds,
        runs=len(logged.runs),
        sections=tuple(sections),
        missing=tuple(missing),
    )


def _grouped(logged: Logged, kind: Kind, by: str | None = None) -> Callable[..., Panel]:
    """A panel whose lines or bars are learners, or configurations where learners have several."""
    by = by or (CONFIGURATION if logged.varied else LEARNER)
    return partial(Panel, kind, group_by=by, aggregate="mean", band="stddev")


def _of(logged: Logged) -> str:
    """What a line is and what its band, in words."""
    line = f"configuration ({', '.join(logged.varied)})" if logged.varied else "learner"
    return f"A line a {line}: mean over seeds, band one standard deviation."


def _held_out(logged: Logged) -> Made:
    """Learning curves of held-out tasks."""
    if not logged.evaluated:
        raise _Nothing("no run was evaluated; leap evaluate RUN")
    lines = _grouped(logged, "lines")
    for game in logged.curves:
        yield lines(
            f"Episodic return in {game}",
            f"Unclipped score, moving average over episodes, from the learned initialization. {_of(logged)}",
            (f"evaluation/learned/{game}/episodic_return",),
            x="evaluation/agent_step",
            x_title="agent steps",
            y_title="score",
        )
    random = _grouped(logged, "lines", FAMILY)
    for key, name, unit in _levels(logged):
        yield lines(
            f"Training {name} on held-out tasks",
            f"On the batch of each inner step, from the learned initialization. {_of(logged)}",
            (f"evaluation/learned/{key}",),
            x="evaluation/inner_step",
            x_title="inner steps",
            y_title=unit,
        )
        if "none" not in logged.learners:
            yield random(
                f"Training {name} from random initializations",
                "What learning without meta-learning does on the same tasks: mean over all runs, band one standard "
                "deviation.",
                (f"evaluation/none/{key}",),
                x="evaluation/inner_step",
                x_title="inner steps",
                y_title=unit,
            )


def _levels(logged: Logged) -> list[tuple[str, str, str]]:
    """Curves over inner steps: key, name, unit."""
    error = [("train_error", "error", "%")] if logged.has_error else []
    return [*error, ("train_loss", "loss", "loss")]


def _ends(logged: Logged) -> Made:
    """Where walks on held-out tasks end."""
    if not logged.evaluated:
        raise _Nothing("no run was evaluated; leap evaluate RUN")
    bars = _grouped(logged, "bars")
    about = _of(logged).replace("A line", "A bar").replace("band", "whisker")
    for game in logged.games:
        yield bars(
            f"Test return in {game}",
            f"Whole episodes with the last parameters. {about}",
            (f"evaluation/learned/{game}/test_return",),
            x_title="score",
        )
    figures = [("test_error", "Final test error", "%"), ("train_error_auc", "Area under the training-error curve", "%")]
    figures = figures if logged.has_error else [("test_loss", "Final test loss", "loss")]
    figures.append(("path_length", "Length of the walks to held-out tasks", "parameters and loss"))
    for key, name, unit in figures:
        own = (f"evaluation/learned/{key}",)
        yield bars(name, f"Mean over held-out tasks, from the learned initialization. {about}", own, x_title=unit)


def _pretraining(logged: Logged) -> Made:
    """What more tasks to pretrain on are worth."""
    if not logged.evaluated:
        raise _Nothing("no run was evaluated; leap evaluate RUN")
    if len(logged.pretraining) < 2:
        known = f"all runs pretrain on {logged.pretraining[0]} tasks" if logged.pretraining else "no run says how many"
        raise _Nothing(f"{known}; compare several numbers, as with --compare.grid.tasks.train 1 3 5")
    key, name, unit = ("test_loss", "loss", "loss") if not logged.has_error else ("test_error", "error", "%")
    if logged.games:
        key, name, unit = "test_return", "return", "score"
    others = [setting for setting in logged.varied if not setting.startswith("tasks.")]
    mixed = f" Runs of a learner that differ in {', '.join(others)} are taken together." if others else ""
    yield _grouped(logged, "lines", LEARNER)(
        f"Test {name} against the number of pretraining tasks",
        f"A line a learner: mean over seeds, band one standard deviation.{mixed}",
        (f"evaluation/learned/{key}",),
        x=COUNT,
        x_title="pretraining tasks",
        y_title=unit,
    )
    yield Panel(
        "points",
        f"Test {name} and number of pretraining tasks, run by run",
        "A point a run; its name says learner and seed.",
        (f"evaluation/learned/{key}",),
        x=COUNT,
        x_title="pretraining tasks",
        y_title=unit,
    )


def _meta_training(logged: Logged) -> Made:
    """How meta-training went."""
    rows = (
        ("train/path_length", "Path length over meta-training", "Mean over tasks of the walk's length.", "length"),
        ("train/error_last", "Training error at the end of walks", "Mean over tasks.", "%"),
        ("train/loss_last", "Training loss at the end of walks", "Mean over tasks.", "loss"),
        ("train/validation_error", "Validation error at the end of walks", "Mean over tasks.", "%"),
        ("charts/episodic_return", "Episodic return", "Mean over the games of a meta-step.", "score"),
        ("meta/gradient_norm", "Norm of the meta-gradient", "After the mean over tasks.", "meta-gradient"),
        ("meta/bad_share", "Share of bad tasks", "Tasks whose walk met NaN or infinity.", "share"),
    )
    yield from _over_meta_steps(logged, rows, ("meta/gradient_norm",))


def _speed(logged: Logged) -> Made:
    """How fast."""
    rows = (
        ("time/inner_steps_per_s", "Inner steps a second", "Of all tasks and processes.", "inner steps / s"),
        ("charts/SPS", "Agent steps a second", "Of all games, copies and processes.", "agent steps / s"),
        ("time/meta_step_s", "Time of a meta-step", "Wall-clock.", "s"),
    )
    yield from _over_meta_steps(logged, rows)


def _over_meta_steps(
    logged: Logged, rows: tuple[tuple[str, str, str, str], ...], logarithmic: tuple[str, ...] = ()
) -> Made:
    lines, found = _grouped(logged, "lines"), [row for row in rows if row[0] in logged.metrics]
    if not found:
        raise _Nothing("no run has taken a meta-step")
    for key, title, about, unit in found:
        text = f"{about} {_of(logged)}"
        yield lines(title, text, (key,), x="step", x_title="meta-steps", y_title=unit, log_y=key in logarithmic)


def _distances(logged: Logged) -> Made:
    """The task-distance matrices."""
    held = _known(logged)
    names = [name for name, one in held.matrices.items() if one.kind == "distance" and name in held.pictures]
    if not names:
        raise _Nothing("no distance was measured; leap measure RUN --distances fisher")
    for name in names:
        yield _heat_map(held, name)


def _transfer(logged: Logged) -> Made:
    """What tells which source is worth starting from."""
    held = _known(logged)
    if held.outcome is None:
        raise _Nothing("no outcome of transfer was measured; leap measure RUN --distances convergence")
    if f"{held.outcome.name}.predictors" in held.pictures:
        yield Panel(
            "pictures",
            "What predicts the best source",
            "Rank correlation of every predictor with the outcome, with intervals.",
            (f"measures/pictures/{held.outcome.name}.predictors",),
        )
    for name in held.tables:
        what = "which source is best" if name == "selection" else "how walks to held-out tasks end"
        yield Panel("table", f"What predicts {what}", "A row a predictor.", (f"measures/{name}",))
    for name, one in held.matrices.items():
        if one.kind != "outcome":
            yield Panel(
                "table_points",
                f"{held.labels[name]} against {held.outcome.label}",
                "A point an ordered pair of tasks, mean over seeds of measuring.",
                ("measures/pairs",),
                x_title=_titled(one.label, one.unit),
                y_title=_titled(held.outcome.label, held.outcome.unit),
                columns=(name, held.outcome.name),
            )
    for name, one in held.matrices.items():
        if one.kind != "distance" and name in held.pictures:
            yield _heat_map(held, name)


def _known(logged: Logged) -> Measured:
    if logged.measured is None:
        raise _Nothing("no run was measured; leap measure RUN")
    return logged.measured


def _heat_map(held: Measured, name: str) -> Panel:
    one = held.matrices[name]
    nearer = {"distance": "larger is farther", "similarity": "larger is nearer", "outcome": "larger is slower or worse"}
    about = f"{_titled(one.label, one.unit)}; {nearer[one.kind]}. Rows are targets, columns sources."
    return Panel("pictures", f"Heat map: {held.labels[name]}", about, (f"measures/pictures/{name}",))


def _titled(label: str, unit: str) -> str:
    return label if unit in ("", "1") else f"{label} ({unit})"


SECTIONS: dict[str, Callable[[Logged], Made]] = {
    "Learning held-out tasks": _held_out,
    "Where held-out tasks end": _ends,
    "Number of pretraining tasks": _pretraining,
    "Meta-training": _meta_training,
    "Speed": _speed,
    "Distances between tasks": _distances,
    "What predicts transfer": _transfer,
}
