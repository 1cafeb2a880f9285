"""The comparison with Stable-Baselines3's returns: its figures, and that it goes on where it was stopped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

from leap.bench import sb3

PATH = Path(__file__).parents[1] / "scripts" / "atari_peer.py"


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("atari_peer", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_end_is_the_last_tenth_and_the_area_waits_where_no_episode_ends(peer: ModuleType) -> None:
    episodes = [[10, 1.0, 5], [890, 3.0, 5], [920, 5.0, 5], [1000, 7.0, 5]]
    assert peer.end(episodes, 1000) == 6.0
    # parts of 20 steps: 1 from part 0, 3 in part 44 and 45, 5 in parts 46 to 48, 7 in the last
    assert peer.area(episodes, 1000) == pytest.approx((44 * 1 + 2 * 3 + 3 * 5 + 7) / 50)


def test_the_report_has_the_difference_and_the_band_of_their_seeds(peer: ModuleType) -> None:
    ours, theirs = [3.0, 4.0, 5.0], [1.0, 2.0, 3.0]
    runs = [
        {"name": "g", "side": side, "end": x, "area": 0.0} for side, of in (("ours", ours), ("sb3", theirs)) for x in of
    ]
    line = peer.report(runs).splitlines()[0]
    half = stats.t.ppf(0.975, 4) * (2 / 3) ** 0.5  # Welch's, of equal variances
    band = stats.t.ppf(0.975, 2)
    assert f"ours - SB3 +2.000 [{2 - half:+.3f}, {2 + half:+.3f}]" in line
    assert f"within its seeds' [{2 - band:.3f}, {2 + band:.3f}]" in line
    assert "outside" in peer.report([run | {"end": 9 * run["end"]} if run["side"] == "ours" else run for run in runs])
    assert peer.report([run for run in runs if run["side"] == "ours"]) == ""


def test_a_command_given_again_makes_only_what_is_not_there(
    peer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[Any, ...]] = []

    def run(side: str) -> Any:
        def ran(game: str, seed: int, steps: int, count: int, settings: sb3.Settings) -> list[list[float]]:
            made.append((side, game, seed, steps, settings.style))
            return [[steps, float(seed), 7]]

        return ran

    monkeypatch.setattr(peer, "SIDES", {side: run(side) for side in ("ours", "sb3")})
    out = tmp_path / "runs.jsonl"
    given = ["--out", str(out), "--games", "catch", "--steps", "100"]
    peer.main([*given, "--seeds", "1"])
    out.write_text(out.read_text() + '{"side": "ours", "ga')
    peer.main([*given, "--seeds", "2"])
    assert made == [(side, "catch", seed, 100, "torch") for seed in (0, 1) for side in ("ours", "sb3")]
    assert "cut off" in capsys.readouterr().err
    peer.main([*given, "--seeds", "2"])
    assert len(made) == 4
    peer.main([*given, "--seeds", "1", "--style", "tf"])
    assert made[4:] == [(side, "catch", 0, 100, "tf") for side in ("ours", "sb3")]


@pytest.mark.filterwarnings("ignore")
def test_both_sides_play_every_step(peer: ModuleType, tmp_path: Path) -> None:
    try:
        sb3.load()
    except sb3.LeftOut as reason:
        pytest.skip(str(reason))
    out = tmp_path / "runs.jsonl"
    peer.main(["--out", str(out), "--games", "catch", "--steps", "400", "--seeds", "1", "--environments", "4"])
    ours, theirs = map(json.loads, out.read_text().splitlines())
    assert len(theirs["episodes"]) == 4 * (100 // 7) and len(ours["episodes"]) == 4 * ((100 + 1) // 8)
    assert {length for _, _, length in ours["episodes"] + theirs["episodes"]} == {7}
