"""Where a run's figures go beside its own files: wandb, or nowhere, behind one small interface.

wandb is never in the way: it is imported when used, asks nothing, gives up on a dead network after seconds, and a
failure of it is said once and ends the tracking, not the run. What the keys mean: docs/metrics.md.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from leap.errors import Trouble, UsageError
from leap.tracked_end import OWN_FILES, finish

MODES = ("auto", "online", "offline", "disabled")
START_TIMEOUT = 20.0  # seconds for a connection; wandb's own default waits 90
FINISH_TIMEOUT = 60.0  # seconds for the rest to be sent; what is left stays on disk for `wandb sync`
FLUSH_INTERVAL = 1.0  # seconds; wandb's 15 lose all rows of a run that is killed early
_GONE = ("MailboxClosedError", "HandleAbandonedError")  # raised, beside ConnectionErrors, where wandb's process died


class Tracker(Protocol):
    """Takes what a run logs. No call raises, whatever happens behind it."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Take the scalars of one meta-step; steps only grow."""

    def curves(self, name: str, evaluation: Mapping[str, Any]) -> None:
        """Take the learning curves in the content of an evaluation.json, under keys that start with `name`/."""

    def measures(self, prefix: str, document: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Take the content of a measures.json and pictures of it (PNG), under keys that start with `prefix`/."""

    def artifact(self, path: Path, name: str, kind: str = "initialization") -> None:
        """Keep a copy of a file as an artifact of this kind."""

    def close(self, exit_code: int = 0) -> None:
        """End the tracking; later calls do nothing."""


class NoTracker:
    """Tracks nothing: the run's own files are all there is."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Nothing."""

    def curves(self, name: str, evaluation: Mapping[str, Any]) -> None:
        """Nothing."""

    def measures(self, prefix: str, document: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Nothing."""

    def artifact(self, path: Path, name: str, kind: str = "initialization") -> None:
        """Nothing."""

    def close(self, exit_code: int = 0) -> None:
        """Nothing."""


def open_tracker(
    *,
    mode: str = "auto",
    project: str = "leap",
    entity: str | None = None,
    run_folder: Path,
    run_name: str,
    run_id: str,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
    config: Mapping[str, Any],
    resume_rows: Iterable[Mapping[str, Any]] | None = None,
    say: Callable[[str], None] | None = None,
) -> Tracker:
    """Start tracking a run with wandb, or not at all.

    Args:
        mode: `online`; `offline`, to be sent later; `disabled`; or `auto`, which is online where a key is found and the
            server answers, else offline. The variable WANDB_MODE wins over it. `online` too goes offline, and says so,
            where it cannot be had: a run does not end for it.
        project: Of the wandb run.
        entity: User or team; None for the key's own.
        run_folder: wandb's files go into its folder `wandb`.
        run_name: Shown in dashboards.
        run_id: Identifies the wandb run; the same for a run and its continuation, another for its evaluation.
        group: What the runs of one comparison share.
        tags: Learner and seed, say.
        job_type: `train`, `evaluate` or `measure`.
        config: The resolved configuration. Beside it wandb gets `configuration`, see `configuration_of`.
        resume_rows: For a continued run, the rows of metrics.jsonl up to its checkpoint. An offline run cannot be
            continued by wandb, so a new part with the same id holds them again and the older part can be left behind.
        say: Takes the few lines meant for the person, `leap.errors.Trouble` among them; the default writes to stderr.

    Raises:
        UsageError: a mode that does not exist.
    """
    say = say or _to_stderr
    mode = _mode(mode)
    if mode == "disabled":
        return NoTracker()
    named: dict[str, Any] = {"project": project, "entity": entity, "name": run_name, "id": run_id, "job_type": job_type}
    named |= {"group": group and group[:128], "tags": [tag[:64] for tag in tags]}
    named |= {"config": {**config, "configuration": configuration_of(run_name.removesuffix(f"-{job_type}"), config)}}
    named |= {"dir": str(Path(run_folder).resolve()), "resume": None if resume_rows is None else "allow"}
    try:
        run = _start(mode, named, say)
    except Exception as error:
        say(Trouble(f"wandb could not start ({_cause(error)}); this run is recorded in its own files alone."))
        return NoTracker()
    tracker = WandbTracker(run, say, Path(run_folder) / OWN_FILES[job_type] if job_type in OWN_FILES else None)
    for row in resume_rows or ():
        tracker.log(row, int(row["step"]))
    return tracker


def configuration_of(run: str, config: Mapping[str, Any]) -> str:
    """What the seeds of one configuration have in common: a comparison's run without its seed, else the learner.

    Example:
        >>> configuration_of("leap-train=3-seed0", {"seed": 0, "learner": {"name": "leap"}})
        'leap-train=3'
        >>> configuration_of("first", {"seed": 0, "learner": {"name": "leap"}})
        'leap'
    """
    end = f"-seed{config.get('seed')}"
    learner = config.get("learner")
    name = learner.get("name") if isinstance(learner, Mapping) else learner
    return run.removesuffix(end) if run.endswith(end) else str(name or run)


class WandbTracker:
    """Hands everything to a wandb run until that fails."""

    def __init__(self, run: Any, say: Callable[[str], None], kept: Path | None = None) -> None:
        self._run: Any = run
        self._say, self._kept = say, kept
        self._step, self._prefixes = 0, set[str]()
        self._attempt("define_metric", lambda: self._axes(("train", "meta", "time")))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the scalars of a meta-step; a step that the server of a continued run already has is left out."""
        scalars = {key: value for key, value in metrics.items() if value is not None} | {"step": step}
        self._step = max(self._step, step)

        def send() -> None:
            self._axes(key.partition("/")[0] for key in scalars if "/" in key)
            if step >= self._run.step:
                self._run.log(scalars, step=step)

        self._attempt("log", send)

    def curves(self, name: str, evaluation: Mapping[str, Any]) -> None:
        """Log mean curves by inner step and as charts, a table with a row a task and step, and the final figures."""
        self._attempt("log", lambda: self._log_curves(name, evaluation))

    def measures(self, prefix: str, document: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Log tables and pictures; walks, numbers a task and relations go into the summary as means."""
        self._attempt("log", lambda: self._log_measures(prefix, document, [Path(path) for path in pictures]))

    def artifact(self, path: Path, name: str, kind: str = "initialization") -> None:
        """Log a copy of the file as an artifact, so that the run folder alone is enough to send it later."""
        self._attempt("log_artifact", lambda: self._log_artifact(Path(path), name, kind))

    def close(self, exit_code: int = 0) -> None:
        """Finish the wandb run, waiting FINISH_TIMEOUT at most for a slow network; say if its file lacks its end."""
        self._attempt("finish", lambda: finish(self._run, exit_code, self._kept, self._say))
        self._run = None

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            kept, self._run = _folder(self._run), None
            sent = f" What wandb has so far can be sent with: wandb sync {kept}" if kept else ""
            lost = f"wandb failed in {what} ({_cause(error)}); the run goes on, recorded in its own files alone."
            self._say(Trouble(lost + sent))
            if isinstance(error, ConnectionError) or type(error).__name__ in _GONE:
                _let_go()
            else:  # its process may be there to end what it has, or have died by then
                atexit.register(_let_go)

    def _axes(self, prefixes: Iterable[str]) -> None:
        """Have the keys that begin so drawn over the meta-step; a family may log under names of its own."""
        if not self._prefixes:
            self._run.define_metric("step", hidden=True)
        for prefix in dict.fromkeys(prefixes):
            if prefix not in self._prefixes:
                self._run.define_metric(f"{prefix}/*", step_metric="step")
                self._prefixes.add(prefix)

    def _log_artifact(self, path: Path, name: str, kind: str) -> None:
        import wandb

        held = wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:128], type=kind)
        with _staging(self._run):
            held.add_file(str(path), skip_cache=True)  # copied, since the run goes on and may write the file anew
            self._run.log_artifact(held)

    def _log_curves(self, name: str, evaluation: Mapping[str, Any]) -> None:
        import wandb

        from leap.report.evaluation import BASELINE, COLUMNS, curve_rows, parse_evaluation
        from leap.tracked_returns import log_returns, pretraining_row, thinned

        held = parse_evaluation(dict(evaluation))
        shown = {"learned": held.learner} | ({BASELINE: BASELINE} if BASELINE in held.values else {})
        self._run.define_metric(f"{name}/inner_step", hidden=True)
        self._run.define_metric(f"{name}/*", step_metric=f"{name}/inner_step")
        keys = ("train_error", "train_loss") if held.has_error else ("train_loss",)
        means = {(label, key): held.values[own][key].mean(axis=(0, 1)) for label, own in shown.items() for key in keys}
        steps = list(range(1, 1 + len(next(iter(means.values())))))
        if held.has_returns:  # walks of so many steps that a row each would be millions
            steps = thinned(next(iter(means.values())))[0].tolist()
            means = {place: thinned(mean)[1] for place, mean in means.items()}
        for at, inner in enumerate(steps):
            row = {f"{name}/{label}/{key}": float(mean[at]) for (label, key), mean in means.items()}
            self._log_next(row | {f"{name}/inner_step": inner})
        charts: dict[str, Any] = {
            f"{name}/{key}_curves": wandb.plot.line_series(
                steps,
                [means[label, key].tolist() for label in shown],
                list(shown),
                key,
                "inner step",
            )
            for key in keys
        }
        if not held.has_returns:
            charts[f"{name}/tasks"] = wandb.Table(columns=list(COLUMNS), data=curve_rows(held))
        with _staging(self._run):
            self._run.log(charts, step=self._step)
            if held.has_returns:
                log_returns(self._run, self._log_next, name, held, shown)
        for label, own in shown.items():
            for key, values in held.values[own].items():
                if key not in keys:
                    self._run.summary[f"{name}/{label}/{key}"] = float(values.mean())
        if held.pretraining_tasks is not None:
            self._log_next(pretraining_row(held, name, shown))

    def _log_next(self, row: Mapping[str, Any]) -> None:
        self._step += 1
        self._run.log(dict(row), step=self._step)

    def _log_measures(self, prefix: str, document: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        import wandb

        from leap.report.measures import parse_measures
        from leap.report.tables import measure_means
        from leap.tracked_measures import tables

        held = parse_measures(dict(document))
        logged: dict[str, Any] = {
            f"{prefix}/{name}": wandb.Table(columns=list(head), data=[list(row) for row in rows])
            for name, (head, *rows) in tables(held).items()
        }
        for path in pictures:
            if path.suffix == ".png":
                logged[f"{prefix}/pictures/{path.stem}"] = wandb.Image(str(path))
        if logged:
            self._step += 1
            with _staging(self._run):
                self._run.log(logged, step=self._step)
        for key, value in measure_means(held).items():
            self._run.summary[f"{prefix}/{key}"] = value


def _start(mode: str, named: Mapping[str, Any], say: Callable[[str], None]) -> Any:
    """A wandb run, online where that was asked for and works, else offline."""
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=START_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=FLUSH_INTERVAL,
    )
    wandb.setup(quiet)
    why = ""
    if mode != "offline":
        why = " (no key was found)"
        try:
            # Asks nothing, and raises where there is a key but no network.
            if wandb.login(prompt=False):
                run = wandb.init(mode="online", reinit="create_new", settings=quiet, **named)
                say(f"wandb: {run.url}")
                return run
        except Exception as error:
            why = f" ({_cause(error)})"
    run = wandb.init(mode="offline", reinit="create_new", settings=quiet, **named)
    say(f"wandb: offline{why}. To send this run to an account later: wandb login; wandb sync {_folder(run)}")
    return run


def _let_go() -> None:
    """End wandb's own process, or forget it where it has died: the next run gets another, nothing is said at exit."""
    import wandb

    with suppress(Exception, SystemExit):  # it exits with its process's exit code
        wandb.teardown()


@contextmanager
def _staging(run: Any) -> Iterator[None]:
    """Have wandb keep its copies of artifacts in the run's folder, not in the home folder.

    That may be small or read-only, and the copies would stay there after the run folder is moved or removed.
    """
    before, folder = os.environ.get("WANDB_DATA_DIR"), _folder(run)
    if before is None and folder is not None:
        os.environ["WANDB_DATA_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("WANDB_DATA_DIR", None)


def _mode(mode: str) -> str:
    """The mode in force: WANDB_MODE, with wandb's older words for it, before the setting."""
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)
    for value, source in ((asked, "WANDB_MODE"), (mode, "tracking.mode")):
        if value and value not in MODES:
            raise UsageError(f"{source} is {value!r}; it can be {', '.join(MODES)}.")
    return asked or mode


def _folder(run: Any) -> str | None:
    """The folder that `wandb sync` takes."""
    return str(Path(run.dir).parent) if isinstance(run.dir, str) else None


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
