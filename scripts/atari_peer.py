"""Our actor-critic beside Stable-Baselines3's A2C: what both learn of the same game, in returns.

    python scripts/atari_peer.py --out peer.jsonl --games catch follow seek --steps 60000 --seeds 10
    python scripts/atari_peer.py --out peer.jsonl --games breakout --steps 60000 --seeds 3

Names of `envs.tiny` are tiny games; others are Atari's, in grey pictures of 42 x 42, four in a stack. Both sides have
the network `small` with orthogonal weights, the same settings, and the same environments, which restart as each side
expects: in the step that ends a game there, in the next one here (whose rows are masked, though counted). A line of
JSON is added for every run that ends; runs that are there are not made again, so the command can be stopped and given
anew. Needs stable-baselines3 (`leap.bench.sb3`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats

from envs.atari import Preprocessing, atari
from envs.tiny import TINY
from envs.vector import VectorEnv
from leap.bench import sb3
from leap.metrics.statistics import difference_interval
from leap.optim import clipped, rmsprop
from leap.randomness import derive
from leap.walk import walk
from tasks.agents import NETWORKS
from tasks.games import Games

PICTURES = Preprocessing(height=42, width=42)
CLIP = 1.0
LAST = 0.1  # of all agent steps: the window that is the end
BINS = 50  # of the curve whose area is taken


def make(game: str, count: int) -> VectorEnv:
    """Copies of a game, tiny or Atari's."""
    return TINY[game](count) if game in TINY else atari(game, count, PICTURES, 1 if count == 1 else 0)


def ours(game: str, seed: int, steps: int, count: int, settings: sb3.Settings) -> list[list[Any]]:
    """Episodes of a walk of ours."""
    family = Games(
        make, [game], ["catch" if game != "catch" and game in TINY else "mirror" if game in TINY else "pong"], seed=0,
        environments=count, unroll=settings.unroll, discount=settings.discount, entropy=settings.entropy,
        value_weight=settings.value_weight, clip_reward=CLIP, network="small",
    )  # fmt: skip
    optimizer = clipped(rmsprop(settings.lr, settings.alpha, settings.eps, style=settings.style), settings.norm)
    tasks = family.batch([0], [seed])
    walk(tasks, family.initial(seed), steps=family.steps_for(steps), optimizer=optimizer, execution="sequential")
    family.close()
    found: list[list[Any]] = tasks.outcomes()["episodes"][0]
    return found


def theirs(game: str, seed: int, steps: int, count: int, settings: sb3.Settings) -> list[list[Any]]:
    """Episodes of SB3's A2C."""
    env = sb3.over([make(game, 1) for _ in range(count)], clip=CLIP, seed=derive(seed, "peer"))
    design = NETWORKS["small"]
    sb3.a2c(env, sb3.Network(design.convs, design.width), settings, seed).learn(steps)
    env.close()
    found: list[list[Any]] = env.episodes
    return found


SIDES = {"ours": ours, "sb3": theirs}


def end(episodes: Sequence[Sequence[float]], steps: int) -> float:
    """Mean score of the episodes that ended in the last part of a run."""
    return fmean(score for step, score, _ in episodes if step > (1 - LAST) * steps)


def area(episodes: Sequence[Sequence[float]], steps: int) -> float:
    """Mean over agent steps of the score: of the episodes that ended in each of `BINS` parts of the run."""
    places = [min(int(BINS * step / steps), BINS - 1) for step, _, _ in episodes]
    found: list[float] = []
    for place in range(BINS):
        own = [row[1] for row, its in zip(episodes, places, strict=True) if its == place]
        found += [fmean(own)] if own else found[-1:]  # no episode ended: as before
    return fmean(found)


def report(runs: Iterable[dict[str, Any]]) -> str:
    """By game: end and area of both sides, their difference with its interval, and whether ours lies in their band."""
    by: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        by.setdefault(run["name"], {}).setdefault(run["side"], []).append(run)
    lines = []
    for name, sides in by.items():
        if set(sides) != set(SIDES):
            continue
        for quantity in ("end", "area"):
            mine, peer = ([run[quantity] for run in sides[side]] for side in SIDES)
            text = f"{name} {quantity}: ours {fmean(mine):.3f} ({len(mine)}), SB3 {fmean(peer):.3f} ({len(peer)})"
            if min(len(mine), len(peer)) > 1:
                found = difference_interval(mine, peer, paired=False)
                text += f"; ours - SB3 {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
                spread = float(stats.t.ppf(0.975, len(peer) - 1)) * stdev(peer)
                low, high = fmean(peer) - spread, fmean(peer) + spread
                where = "within" if low <= fmean(mine) <= high else "outside"
                text += f"; {where} its seeds' [{low:.3f}, {high:.3f}]"
            lines.append(text)
    return "\n".join(lines)


def read(out: Path) -> list[dict[str, Any]]:
    """Runs that ended; a line that was cut off is none."""
    found = []
    for line in out.read_text(encoding="utf-8").splitlines() if out.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print("a line that was cut off is left out", file=sys.stderr)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not there yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a file of JSON lines, added to")
    parser.add_argument("--games", nargs="+", default=["catch", "follow", "seek"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=60_000, help="agent steps of a run, over all environments")
    parser.add_argument("--environments", type=int, default=16)
    parser.add_argument("--style", choices=("torch", "tf"), default="torch", help="of RMSProp")
    parser.add_argument("--lr", type=float, default=sb3.Settings.lr)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = sb3.Settings(style=given.style, lr=given.lr)
    shared = {"steps": given.steps, "environments": given.environments, **asdict(settings)}
    there = read(given.out)
    if given.out.exists() and not given.out.read_text(encoding="utf-8").endswith("\n"):
        with given.out.open("a", encoding="utf-8") as file:
            file.write("\n")  # ends a line that was cut off
    keys = ("side", "game", "seed", *shared)
    done = {tuple(run[key] for key in keys) for run in there}
    for seed in range(given.first, given.first + given.seeds):
        for game in given.games:
            for side, run in SIDES.items():
                row = {"side": side, "game": game, "seed": seed, **shared}
                if tuple(row[key] for key in keys) in done:
                    continue
                began = time.perf_counter()
                episodes = run(game, seed, given.steps, given.environments, settings)
                row |= {"name": f"{game}, {given.style}, lr {given.lr:g}, {given.steps} steps"}
                row |= {"end": end(episodes, given.steps), "area": area(episodes, given.steps)}
                row |= {"seconds": time.perf_counter() - began, "episodes": episodes}
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                there.append(row)
                print(f"{side} {game} {seed}: end {row['end']:.3f}, area {row['area']:.3f}", flush=True)
    print(report(there))


if __name__ == "__main__":
    main()
