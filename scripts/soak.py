"""Kill, stop and starve jobs of `leap` at random, start them again, and compare with what nothing disturbed.

A scenario is one job (`train`, `evaluate`, `measure`, or a comparison of two runs) of one task family on one or two
processes. It meets one to three faults, is started again after each as a user would do it, and finishes undisturbed.
Then its folder must be that of the undisturbed job, byte for byte but for times (`leap.soundness`): initialization,
metrics, evaluation, measures, tables and pictures; nothing temporary may be left. After every fault, whatever stands
under its final name must be whole.

    python scripts/soak.py --kills 100 --out runs/soak.jsonl         all jobs; 25 minutes on two cores
    python scripts/soak.py --short --out soak.jsonl                  a handful of faults

Faults: SIGKILL of all processes or of one; SIGTERM and SIGUSR1; SIGSTOP, and SIGCONT a second later; --max-time; a
limit on the size of files; a disk that is full (a tmpfs, where one can be mounted); and a kill after which the newest
checkpoint or item is cut short or has a bit turned over. They are drawn from --seed: right before a given operation
on files, where they fall at the same place each time, or a moment after one. Most jobs are forks of
this process (`scripts/soak_attempts.py` says what that leaves out); a share of them, --real, are real commands. One of
each kind is a real command that nothing disturbs, which has to leave what a fork leaves.

Every fault and scenario is a line of --out, and finished scenarios are not repeated. Exit code 1: something was found.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process with threads may hang
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import collections
import importlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soak_attempts import Attempt, adopt_orphans
from soak_faults import KINDS, Fault, Outcome, amiss, drawn, place, spoil
from soak_jobs import FAMILIES, SHORT, Job, all_jobs

from leap import soundness
from leap.cli.measure_text import columns

# What leap imports late, once for all forks.
for late in ("matplotlib.backends.backend_agg", "matplotlib.figure", "leap.report", *(
    f"leap.cli.{name}" for name in ("compare", "evaluate", "lifecycle", "measure", "measures", "train")
)):  # fmt: skip
    importlib.import_module(late)

SCENARIOS = 7  # of the short form
EACH = 10  # of so many scenarios one is the real command that nothing disturbs, until every kind of job was
STARTING = 5.0  # seconds that Python takes, where no real command was seen
PAGE, ROOMY = 4096, 1 << 28  # bytes


class Soak:
    """The jobs, their undisturbed results, and the lines that were written.

    Args:
        work: Folder for everything that is made.
        out: File of lines.
        seed: Of the faults.
        real: Share of scenarios that are real commands.
    """

    def __init__(self, work: Path, out: Path, seed: int, real: float) -> None:
        self.work, self.out, self.seed, self.real = work.resolve(), out, seed, real
        written = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        over = {line["scenario"] for line in written if "attempts" in line}
        self.lines = [line for line in written if line["scenario"] in over]
        self.next = 1 + max(over, default=-1)
        self.disk = self.work / "disk"
        self.kinds = [kind for kind in KINDS if kind != "full" or self.mounted()]
        self.unmount()

    def tell(self, line: dict[str, Any]) -> None:
        """Keep a line."""
        self.lines.append(line)
        with self.out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    # -- what nothing disturbs ---------------------------------------------------------------------------------------

    def reference(self, job: Job) -> tuple[Path, Outcome, float]:
        """The folder that the job leaves when nothing happens, how it went, and seconds of the real command."""
        folder, kept = self.work / "reference" / job.name.replace(" ", "-"), self.work / "usual.json"
        usual = json.loads(kept.read_text()) if kept.exists() else {}
        if job.name not in usual:
            self.prepare(job, folder)
            outcome = Attempt(job.words(folder), folder, Fault(), 0.0, job.world).forked()
            if outcome.code:
                raise SystemExit(f"soak: {job.name} fails undisturbed:\n{outcome.text}")
            usual[job.name] = {"seconds": outcome.seconds, "events": outcome.events}
            kept.write_text(json.dumps(usual))
        forked = Outcome(**usual[job.name])
        alike = (job.kind, f"x{job.processes}")
        told = [line for line in self.lines if "seconds" in line]
        real = [line["seconds"] for line in told if tuple(line["job"].split()[::2]) == alike]
        return folder, forked, max(real, default=forked.seconds + STARTING)

    def prepare(self, job: Job, folder: Path) -> None:
        """A new folder for the job, with a trained run where it needs one."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if job.kind in ("evaluate", "measure"):
            trained, _, _ = self.reference(Job("train", job.family, 1))
            shutil.copytree(trained / "run", folder / "run")

    # -- a scenario ---------------------------------------------------------------------------------------------------

    def undisturbed(self, job: Job) -> None:
        """The real command, which must leave what the fork has left."""
        folder = self.work / "scenario"
        reference, _, _ = self.reference(job)
        self.prepare(job, folder)
        outcome = Attempt(job.words(folder), folder, Fault(), 0.0, job.world).real()
        found = [f"exit codes {outcome.codes}: {outcome.text[-1000:]}"] if outcome.code else []
        self.over(job, 1, found + compared(folder, reference), real=True, seconds=outcome.seconds)

    def scenario(self, job: Job) -> None:
        """Faults, ends and beginnings of one job, and what is left of it."""
        draw = random.Random(f"{self.seed} {self.next}")
        reference, forked, seconds = self.reference(job)
        real = draw.random() < self.real
        usual = Outcome(seconds=seconds) if real else forked
        largest = max(path.stat().st_size for path in reference.rglob("*") if path.is_file())
        faults = list(drawn(draw, self.kinds, usual, largest, sweep=job.kind == "compare"))
        full = any(fault.kind == "full" for fault in faults)
        folder = self.disk / "scenario" if full and self.mounted() else self.work / "scenario"
        try:
            self.prepare(job, folder)
            found, attempts = self.disturbed(job, folder, faults, usual, real, draw)
            done, again = self.finish(job, folder, real)
            found += done or compared(folder, reference)
        finally:
            self.unmount()
        self.over(job, attempts + again, found, real=real)

    def disturbed(
        self, job: Job, folder: Path, faults: Sequence[Fault], usual: Outcome, real: bool, draw: random.Random
    ) -> tuple[list[str], int]:
        """Attempts that meet faults, until one finishes; what was wrong, and how many they were."""
        found: list[str] = []
        attempts, spoilt = 0, ""
        for fault in faults:
            attempts += 1
            outcome = self.attempt(job, folder, fault, usual, real)
            problems = amiss(fault, outcome, job.world, real)
            problems += [line for line in soundness.damaged(folder) if not spoilt or spoilt not in line]
            if fault.kind == "torn" and outcome.code:
                spoilt, how = spoil(folder, draw)
                outcome.where += how
            self.tell({
                "scenario": self.next, "job": job.name, "real": real, "fault": fault.told(), "where": outcome.where,
                "codes": outcome.codes, "ending": outcome.ending, "load": round(outcome.load, 2),
                "problems": problems, "said": outcome.text[-2000:] if problems else "",
            })  # fmt: skip
            found += [f"after {fault.told()} {outcome.where}: {problem}" for problem in problems]
            if outcome.code == 0:
                break
        return found, attempts

    def attempt(self, job: Job, folder: Path, fault: Fault, usual: Outcome, real: bool) -> Outcome:
        """Start the job, disturbed by this fault."""
        if fault.kind == "full":
            held = sum(path.stat().st_size // PAGE + 1 for path in folder.rglob("*"))
            self.resize(held * PAGE + (fault.size or 0))
        one = Attempt(job.words(folder), folder, fault, usual.seconds, job.world)
        outcome = one.real() if real else one.forked()
        if fault.kind == "full":
            self.resize(ROOMY)
        return outcome

    def finish(self, job: Job, folder: Path, real: bool) -> tuple[list[str], int]:
        """Start the job until it is done; what is wrong with that, and how often it took."""
        for again in (1, 2, 3):
            outcome = self.attempt(job, folder, Fault(), Outcome(), real)
            if outcome.code == 0:
                return [], again
            if "it was removed: repeat the command" not in outcome.text:  # a damaged item, which is told of
                break
        return [f"it does not go on (exit codes {outcome.codes}): {outcome.text[-1000:]}"], again

    def over(self, job: Job, attempts: int, found: list[str], **more: Any) -> None:
        """Keep what became of a scenario, and go on to the next."""
        self.tell({"scenario": self.next, "job": job.name, "attempts": attempts, "found": found, **more})
        for problem in found:
            print(f"scenario {self.next}, {job.name}: {problem}", file=sys.stderr)
        self.next += 1

    # -- a disk that can be full --------------------------------------------------------------------------------------

    def mounted(self) -> bool:
        """Mount a small disk of its own, and say whether that is possible here."""
        self.disk.mkdir(parents=True, exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(self.disk)]
        return shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0

    def resize(self, size: int) -> None:
        """Give the disk so many bytes."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.disk)], check=True)

    def unmount(self) -> None:
        """Take the disk away, where there is one."""
        while os.path.ismount(self.disk):
            subprocess.run(["umount", str(self.disk)], check=True)


def compared(folder: Path, reference: Path) -> list[str]:
    """What a finished job has not left as the undisturbed one has."""
    found = soundness.left_behind(folder) + soundness.damaged(folder) + soundness.differing(folder, reference)
    for metrics in reference.rglob("metrics.jsonl"):
        steps = len(metrics.read_bytes().splitlines())
        found += soundness.miscounted(folder / metrics.parent.relative_to(reference), steps)
    return found


def kills(lines: Sequence[Mapping[str, Any]]) -> int:
    """Kills that struck: a job may be over before."""
    return sum(
        line["fault"]["kind"] in ("kill", "torn") and line["ending"] is not None for line in lines if "fault" in line
    )


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Faults by kind, place and job."""
    faults = [line for line in lines if "fault" in line]
    by_kind = [("fault", "attempts", "not finished by them", "slowest end, s", "problems")]
    for kind in KINDS:
        own = [line for line in faults if line["fault"]["kind"] == kind]
        slow = max((line["ending"] or 0.0 for line in own), default=0.0)
        counts = (
            len(own),
            sum(any(line["codes"]) for line in own),
            f"{slow:.2f}",
            sum(map(bool, (line["problems"] for line in own))),
        )
        by_kind.append((kind, *map(str, counts)))
    struck = collections.Counter(place(line["where"]) for line in faults if line["ending"] is not None)
    by_job = [("job", "scenarios", "real", "faults", "violations")]
    for job in dict.fromkeys(line["job"] for line in lines):
        own = [line for line in lines if line["job"] == job]
        ends = [line for line in own if "attempts" in line]
        counts = (
            len(ends),
            sum(line["real"] for line in ends),
            len(own) - len(ends),
            sum(len(line["found"]) for line in ends),
        )
        by_job.append((job, *map(str, counts)))
    where = ", ".join(f"{name} {count}" for name, count in struck.most_common())
    return "\n".join([*columns(by_kind), "", f"signals fell at: {where}", "", *columns(by_job)])


def main(given: Sequence[str]) -> int:
    """Soak, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of lines")
    parser.add_argument("--work", type=Path, help="folder for what is made; by default beside --out")
    parser.add_argument("--kills", type=int, default=100, help="go on until so many kills have struck")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=float, default=0.05, help="share of scenarios that are real commands")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=["sinusoid", "glyphs", "games"])
    parser.add_argument("--short", action="store_true", help="a few jobs and faults, for continuous integration")
    own = parser.parse_args(given)
    work = own.work or own.out.with_suffix("")
    work.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    soak = Soak(work, own.out, own.seed, 0.0 if own.short else own.real)
    jobs = SHORT if own.short else all_jobs(own.family)
    kinds = {(job.kind, job.processes): job for job in reversed(jobs)}
    plain = jobs[:1] if own.short else [job for job in jobs if job in kinds.values()]
    while soak.next < SCENARIOS if own.short else kills(soak.lines) < own.kills:
        turn, at = divmod(soak.next, EACH)
        if at == 0 and turn < len(plain):
            soak.undisturbed(plain[turn])
        else:
            soak.scenario(jobs[soak.next % len(jobs)])
    print(table(soak.lines))
    return int(any(line.get("found") for line in soak.lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
