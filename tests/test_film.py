"""Games filmed: pictures of what was played, in files that hold exactly these, in sets that are whole."""

from __future__ import annotations

import dataclasses
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

import leap.videos as videos
from envs.atari import Preprocessing, atari
from envs.film import Filmed, Screen, picture
from envs.tiny import TINY, truncated, with_lives
from envs.vector import EnvironmentProblem, VectorEnv
from leap import optim
from leap.errors import UsageError
from leap.evaluate import evaluate
from leap.videos import Videos, animated
from leap.walk import walk
from tasks.film import film
from tasks.games import Games

ALE = pytest.mark.skipif(find_spec("ale_py") is None, reason="needs ale-py")
GAMES = TINY | {
    "lives": with_lives("catch", lives=3, rounds=9),  # 63 steps at most
    "cut": truncated("corridor", 3),
}


def games(test: tuple[str, ...] = ("catch", "follow"), make: Any = None) -> Games:
    return Games(
        make or (lambda name, count: GAMES[name](count)), ("seek",), test, seed=0, environments=3, unroll=4,
        network="small", evaluation_episodes=4,
    )  # fmt: skip


def decoded(data: bytes) -> tuple[list[np.ndarray], list[int]]:
    """Pictures of an animation and how many milliseconds each stays."""
    shown, lasting = [], []
    with Image.open(io.BytesIO(data)) as image:
        for place in range(getattr(image, "n_frames", 1)):
            image.seek(place)
            shown.append(np.asarray(image.convert("RGB")))
            lasting.append(int(image.info["duration"]))
    return shown, lasting


def noise(count: int, side: int = 24) -> list[np.ndarray]:
    stream = np.random.default_rng(0)
    return [stream.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


# -- one environment and its screen ------------------------------------------------------------------------------------


class Shown:
    """A tiny game whose screen is another copy of it, or another game."""

    def __init__(self, name: str = "catch", screen: str = "catch", rate: float = 30.0) -> None:
        self._env, self._of, self._rate = GAMES[name](1), screen, rate
        self.screens: list[VectorEnv] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def screen(self) -> Screen:
        self.screens.append(GAMES[self._of](1))
        return Screen(self.screens[-1], self._rate)


def test_a_filmed_environment_plays_as_it_does_unfilmed() -> None:
    plain_env, filmed = TINY["catch"](1), Filmed(Shown())
    stream = np.random.default_rng(0)
    assert np.array_equal(plain_env.reset(5), filmed.reset(5)) and filmed.rate == 30.0
    for _ in range(30):
        actions = stream.integers(0, 3, 1)
        plain_env.send(actions)
        filmed.send(actions)
        want, got = plain_env.receive(), filmed.receive()
        assert all(np.array_equal(a, b) for a, b in zip(want[:-1], got[:-1], strict=True))
        assert want.episodes == got.episodes
        assert np.array_equal(filmed.frame(), want.obs[0].transpose(1, 2, 0))


def test_a_screen_that_plays_another_game_is_noticed() -> None:
    filmed = Filmed(Shown("catch", "cut"))
    filmed.reset(0)
    with pytest.raises(EnvironmentProblem, match=r"catch: the screen plays another game \(truncated differs\)"):
        for _ in range(4):
            filmed.send(np.zeros(1, np.int64))
            filmed.receive()


def test_after_the_cut_the_screen_rests_until_the_next_reset() -> None:
    env = Shown()
    filmed = Filmed(env)
    filmed.reset(0)
    before = filmed.frame()
    filmed.cut()
    filmed.send(np.zeros(1, np.int64))
    filmed.receive()
    assert np.array_equal(filmed.frame(), before)
    filmed.reset(0)
    filmed.send(np.zeros(1, np.int64))
    filmed.receive()
    assert not np.array_equal(filmed.frame(), before)
    filmed.close()
    with pytest.raises(EnvironmentProblem, match="after close"):
        env.screens[0].send(np.zeros(1, np.int64))


def test_one_environment_at_a_time() -> None:
    with pytest.raises(EnvironmentProblem, match="one environment is filmed at a time, got 2"):
        Filmed(TINY["catch"](2))


@pytest.mark.parametrize("shape", [(3, 16, 16), (6, 16, 16), (1, 16, 16), (4, 42, 30), (3, 210, 160)])
def test_a_picture_is_the_newest_observation_enlarged(shape: tuple[int, int, int]) -> None:
    obs = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = picture(obs)
    times = found.shape[0] // shape[1]
    assert min(found.shape[:2]) >= 160 > min(shape[1:]) * (times - 1) and found.shape == (
        times * shape[1], times * shape[2], 3
    )  # fmt: skip
    for channel in range(3):
        newest = obs[-3:][channel] if shape[0] % 3 == 0 else obs[-1]
        assert np.array_equal(found[::times, ::times, channel], newest)
        assert np.array_equal(found[times - 1 :: times, times - 1 :: times, channel], newest)


def area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mean over the area that a smaller pixel covers, with fractions of pixels: what INTER_AREA is for."""
    out: np.ndarray = image.astype(float)
    for axis, size in ((0, height), (1, width)):
        length = image.shape[axis]
        edge = np.arange(size + 1) * length / size
        whole = np.arange(length)
        share = np.clip(np.minimum(edge[1:, None], whole + 1) - np.maximum(edge[:-1, None], whole), 0, None)
        out = np.moveaxis(np.tensordot(share / share.sum(axis=1, keepdims=True), out, (1, axis)), 0, axis)
    return out


@ALE
@pytest.mark.parametrize(("game", "height"), [("breakout", 210), ("pooyan", None)])
def test_an_atari_screen_is_what_the_agent_sees_before_it_is_shrunk(game: str, height: int | None) -> None:
    """Over whole steps with sticky actions and random beginnings; one grey level for rounding."""
    preprocessing = Preprocessing(height=42, width=42, grayscale=False, stack=2)
    filmed, alone = Filmed(atari(game, 1, preprocessing, 1)), atari(game, 1, preprocessing, 1)
    stream = np.random.default_rng(1)
    obs = filmed.reset(7)
    assert np.array_equal(obs, alone.reset(7)) and filmed.rate == 15.0
    seen = set()
    for _ in range(60):
        frame = filmed.frame()
        assert frame.dtype == np.uint8 and frame.shape[1:] == (160, 3) and height in (None, len(frame))
        shrunk = area(frame, 42, 42).transpose(2, 0, 1)
        assert np.abs(shrunk - obs[0, -3:].astype(float)).max() <= 1.0
        seen.add(frame.tobytes())
        actions = stream.integers(0, filmed.actions, 1)
        filmed.send(actions)
        alone.send(actions)
        obs = filmed.receive().obs
        assert np.array_equal(obs, alone.receive().obs)
    assert len(seen) > 20
    filmed.close()


@ALE
def test_an_atari_screen_follows_the_other_settings() -> None:
    preprocessing = Preprocessing(height=42, width=42, frame_skip=2, sticky=0.0, noop_max=0, full_actions=True)
    filmed = Filmed(atari("pong", 1, dataclasses.replace(preprocessing, max_frames=40), 1))
    filmed.reset(0)
    assert (filmed.rate, filmed.actions) == (30.0, 18)
    ended = []
    for _ in range(30):
        filmed.send(np.array([17]))
        ended.append(bool(filmed.receive().truncated[0]))
    assert ended.count(True) == 1 and ended.index(True) == 19  # also on the screen, or it had been noticed


# -- an episode --------------------------------------------------------------------------------------------------------


def test_a_film_is_one_whole_episode_from_its_first_picture_to_its_last() -> None:
    family = games(("lives", "follow"))
    theta = family.initial(3)
    found = film(family, 1, theta, seed=4)
    assert found.length == found.shown == len(found.frames) - 1 and found.rate == 6.0
    play, env = family.filmed(1, 4)
    with torch.no_grad():
        for frame in found.frames[:-1]:
            assert np.array_equal(env.frame(), frame)
            play.send(play.choose(family.module, family.layout.unflatten(theta)))
            play.receive()
    assert np.array_equal(env.frame(), found.frames[-1])
    assert play.episodes == [[found.length, found.score, found.length]]


def test_the_seed_decides_the_episode_and_another_point_begins_alike() -> None:
    family = games()
    one, again, other = (film(family, 1, family.initial(0), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one.frames, again.frames, strict=True)) and one[1:] == again[1:]
    assert not np.array_equal(one.frames[0], other.frames[0])
    trained = film(family, 1, family.initial(0) + 0.2 * torch.randn(family.layout.n, generator=_stream(0)), 1)
    assert np.array_equal(one.frames[0], trained.frames[0])
    assert not all(np.array_equal(a, b) for a, b in zip(one.frames, trained.frames, strict=True))


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 5.0])
def test_a_long_episode_is_shown_from_its_beginning_and_counted_to_its_end(seconds: float) -> None:
    family = games(("follow",))  # 32 steps, at 6 a second
    whole, part = (film(family, 1, family.initial(0), 1, limit) for limit in (60.0, seconds))
    assert whole.length == part.length == 32 and whole.score == part.score
    assert part.shown == min(32, int(6 * seconds)) == len(part.frames) - 1
    assert all(np.array_equal(a, b) for a, b in zip(part.frames, whole.frames, strict=False))


def test_of_a_fast_game_some_pictures_are_left_out_and_its_speed_stays() -> None:
    family = games(
        ("lives",), make=lambda name, count: Shown(name, name, rate=31.0) if count == 1 else GAMES[name](count)
    )
    found = film(family, 1, family.initial(0), 1)
    every = film(games(("lives",)), 1, family.initial(0), 1)
    assert found.rate == 15.5 and found.length == every.length
    last = [] if found.length % 2 == 0 else [len(every.frames) - 1]
    assert len(found.frames) == len(every.frames[::2]) + len(last)
    assert len(found.frames) / found.rate == pytest.approx((found.length + 1) / 31.0, abs=1 / 15)


def test_filming_in_the_middle_of_a_walk_changes_nothing_in_it() -> None:
    ends = []
    for filmed in (False, True):
        family = games()
        batch = family.batch([1], [5])

        class Watched:
            def __getattr__(self, name: str, batch: Any = batch) -> Any:
                return getattr(batch, name)

            def sample(self, theta: Any, step: int, batch: Any = batch, family: Any = family, on: bool = filmed) -> Any:
                if on:
                    film(family, 1, theta[0], 9)
                return batch.sample(theta, step)

        ends.append(walk(Watched(), family.initial(0), steps=3, optimizer=optim.sgd(0.1)).theta)
    assert torch.equal(*ends)


# -- evaluation tells of a walk's end ----------------------------------------------------------------------------------


def test_evaluation_tells_the_end_of_every_walk() -> None:
    family, told = games(), []
    kept = {}

    def finished(repetition: int, ids: Any, theta: Any) -> None:
        told.append((repetition, list(ids)))
        kept[repetition] = theta.clone()

    options: dict[str, Any] = {
        "learner": None, "inner": lambda steps: optim.sgd(0.1), "steps": 2, "seed": 0, "evaluation_seeds": [3, 4]
    }  # fmt: skip
    found = evaluate(family, family.initial(0), finished=finished, **options)
    assert told == [(3, [1, 2]), (4, [1, 2])] and kept[3].shape == (2, family.layout.n)
    assert found == evaluate(games(), family.initial(0), **options)
    assert not torch.equal(kept[3], kept[4]) and not torch.equal(kept[3][0], family.initial(0))


# -- files -------------------------------------------------------------------------------------------------------------


def test_an_animation_holds_its_pictures_exactly_at_their_speed() -> None:
    frames = noise(31)
    found = animated(frames, 15.0)
    shown, lasting = decoded(found.data)
    assert (found.frames, found.rate) == (31, 15.0)
    assert all(np.array_equal(a, b) for a, b in zip(shown, frames, strict=True))
    assert sum(lasting[:30]) == 2000 and set(lasting[:30]) == {66, 67} and lasting[30] >= 1066


def test_pictures_that_stand_still_last_as_long() -> None:
    one, two = noise(2)
    shown, lasting = decoded(animated([one, one, one, two], 10.0).data)
    assert sum(lasting) == 400 + 1000 and np.array_equal(shown[0], one) and np.array_equal(shown[-1], two)
    shown, _ = decoded(animated([one], 10.0).data)
    assert np.array_equal(shown[0], one)


def test_a_file_that_is_too_large_is_thinned_and_lasts_as_long() -> None:
    frames = noise(64)
    whole = animated(frames, 16.0)
    found = animated(frames, 16.0, most=len(whole.data) // 3)
    assert len(found.data) <= len(whole.data) // 3 and (found.frames, found.rate) == (16, 4.0)
    shown, lasting = decoded(found.data)
    assert all(np.array_equal(a, b) for a, b in zip(shown, frames[::4], strict=True))
    assert sum(lasting) == 4000 + 1000
    assert animated(frames, 16.0, most=1).frames == 1  # it ends


@pytest.mark.parametrize(
    "part", ["../../etc", "a/b", "a\\b", ".hidden", "", "x" * 300, "\u0444\u0438\u043b\u044c\u043c", "a\nb", "-"]
)
def test_no_name_leaves_the_folder(part: str, tmp_path: Path) -> None:
    films = Videos(tmp_path / "videos", {})
    file = films.add(noise(1), 6.0, (part, "leap", "1", "0"), {})
    assert file.parent == tmp_path / "videos" and file.is_file() and len(file.name) < 120
    assert not file.name.startswith(".") and set(file.name) <= set("abcdehiklnptvwx_.-01")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]


def files(run: Path) -> list[str]:
    """What the index names, all of which is there."""
    named = [one["file"] for one in json.loads((run / "videos" / "index.json").read_text())["videos"]]
    assert all((run / "videos" / name).is_file() for name in named)
    return named


def add(films: Videos, game: str, score: str = "1") -> None:
    films.add(noise(2), 6.0, (game, "leap", "1", score), {"game": game, "score": float(score)})


def test_a_set_replaces_the_one_before_as_a_whole(tmp_path: Path) -> None:
    run = tmp_path
    films = Videos(run / "videos", {"seed": 7})
    for game in ("catch", "a b", "a/b"):  # two that are written alike
        add(films, game)
    assert not (run / "videos" / "index.json").exists()  # nothing is named before all is there
    films.finish()
    names = ["catch-leap-1-1.webp", "a_b-leap-1-1.webp", "a_b-leap-1-1_.webp"]
    assert files(run) == names
    document = json.loads((run / "videos" / "index.json").read_text())
    assert (document["format"], document["seed"]) == (1, 7)
    assert document["videos"][1] == {"game": "a b", "score": 1.0, "frames": 2, "rate": 6.0, "file": names[1]}

    (run / "videos" / "notes.txt").write_text("mine")
    half = Videos(run / "videos", {})
    add(half, "catch", "5")  # and then it is killed
    assert files(run) == names
    again = Videos(run / "videos", {})
    add(again, "catch", "-2")
    again.finish()
    assert {path.name for path in (run / "videos").iterdir()} == {"catch-leap-1--2.webp", "index.json", "notes.txt"}


def test_without_webp_it_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UsageError, match="this Pillow cannot write; pip install --upgrade pillow"):
        Videos(tmp_path, {})


def test_the_bound_on_files_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert videos.MOST_BYTES <= 5 * 2**20
    monkeypatch.setattr(videos, "_webp", lambda frames, rate: bytes(len(frames) * 2**20))
    assert [animated(noise(count), 8.0).frames for count in (3, 4, 5, 9)] == [3, 4, 3, 3]
