"""What an agent of reference, its states and a walk that acts depend on, and what a kept file is named by."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_game_data import QUICK, agent, games, ticking
from tiny_measurable import SMALL

from envs.tiny import TINY
from leap import optim
from leap.measure.context import Context
from leap.measure.document import returns_tables
from leap.measure.measuring import Measuring
from leap.measure.paths import Walks
from leap.measure.plan import SCRATCH, Item, Plan, items
from leap.measure.reader import Reader
from leap.measure.store import Result, Store
from leap.randomness import derive
from leap.report.returns_curves import area
from leap.walk import walk
from tasks import game_data
from tasks.game_data import Imitation, imitation, learned
from tasks.games import Games

TWINS = {"one": "catch", "other": "catch"}  # a game under two names


def twins(how: Imitation = QUICK, **changes: Any) -> Games:
    return games(how, tuple(TWINS), make=lambda name, count: TINY[TWINS[name]](count), **changes)


# The agent of reference


def test_it_begins_at_an_initialization_of_the_runs_seed_and_the_games_name() -> None:
    still = replace(QUICK, inner=lambda steps: optim.sgd(0.0))
    trunks = set()
    for seed in (0, 1):
        family = twins(seed=seed)
        for task in (0, 1):
            own = family.initial(derive(seed, "reference", family.name(task)))
            found = learned(family, task, still)[: family.layout.trunk]
            assert torch.equal(found, own[: family.layout.trunk])
            trunks.add(tuple(found[:9].tolist()))
    assert len(trunks) == 4


def test_it_learns_for_the_agent_steps_asked_for_and_its_schedule_spans_them() -> None:
    asked, taken = [], 0

    def inner(steps: int) -> optim.Optimizer:
        asked.append(steps)
        own = optim.sgd(1e-3)

        def update(*given: Any) -> Any:
            nonlocal taken
            taken += 1
            return own.update(*given)

        return own._replace(update=update)

    family = games()  # 4 environments, 5 steps
    learned(family, 0, replace(QUICK, steps=61, inner=inner))
    assert asked == [4] and taken == 4


def test_its_head_has_the_width_of_its_game() -> None:
    family = games()  # 3 of 4 actions
    found = [learned(family, task, replace(QUICK, steps=20)) for task in (0, 1)]
    assert [len(one) - family.layout.trunk for one in found] == [a * (family.width + 1) for a in (3, 4)]
    states = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    assert [game_data.policy_logits(family, one, states).shape[1] for one in found] == [3, 4]


# States and labels


def test_games_meet_states_of_their_own() -> None:
    made, family = ticking(QUICK)
    for task in (0, 1):
        imitation(family, task, agent(family), QUICK)
    seeds = [seed for env in made for seed in env.seeds]
    assert len(seeds) == len(set(seeds)) == 4


@pytest.mark.parametrize(("examples", "test"), [(7, 4), (8, 4), (2, 1)])
def test_half_as_many_test_states_rounded_up(examples: int, test: int) -> None:
    family, how = games(), replace(QUICK, examples=examples, spacing=1, labels="drawn")
    data = imitation(family, 0, torch.cat([agent(family)[:-3], torch.zeros(3)]), how)
    assert (len(data.inputs), len(data.labels), len(data.test_inputs), len(data.test_labels)) == (
        examples, examples, test, test
    )  # fmt: skip


@pytest.mark.parametrize("spacing", [3, 5])
def test_a_stretch_is_left_out_only_where_its_last_step_is_the_end_of_an_episode(spacing: int) -> None:
    how = replace(QUICK, spacing=spacing, examples=120)
    _, family = ticking(how)
    told = imitation(family, 0, agent(family), how).inputs[:, 0, 0, :4].long()
    whole = int(told[:, 3].max()) // spacing  # the last stretch may have been cut short
    assert whole >= 30
    for env in range(4):
        found = set((told[told[:, 0] == env, 3] // spacing).tolist())
        ends = {clock for clock in range(whole * spacing) if clock % (5 + env) == 4 + env}
        assert {s for s in range(whole) if (s + 1) * spacing - 1 not in ends} <= found


def test_how_states_are_labelled_changes_none_of_them() -> None:
    family = games()
    one, two = (imitation(family, 0, agent(family), replace(QUICK, labels=how)) for how in ("likeliest", "drawn"))
    assert torch.equal(one.inputs, two.inputs) and torch.equal(one.test_inputs, two.test_inputs)


# What a kept file is named by


def test_other_versions_and_other_actions_are_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = replace(QUICK, folder=tmp_path)
    other = games(kept, make=lambda name, count: TINY["seek"](count))
    paths = [family.imitations.path(0) for family in (games(kept), other)]
    for place, name, value in ((game_data, "_FORMAT", 99), (torch, "__version__", "9.9")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            paths.append(games(kept).imitations.path(0))
    assert games(kept).actions(0) != other.actions(0)
    assert len(set(paths)) == 4


# Learning a game from another one's solution


def walks(family: Games, steps: int = 12) -> Walks:
    start: Any = (family.initial(0), None)
    # a rate that tells of how many steps its schedule is
    return Walks(family, {"none": start}, lambda k: optim.adam(3e-4 * k), steps, 0, "test", "sequential")


def test_acting_is_a_walk_from_the_sources_trunk_scored_at_its_end() -> None:
    family, steps = games(names=("catch", "seek"), evaluation_episodes=40), 12
    found = walks(family, steps).act(family.initial(7), Item("acting", 2, 0, 1)).numbers
    seed = derive(0, "acting", 2, 0)
    trunk, own = family.layout.trunk, family.initial(seed)
    tasks = family.batch([0], [seed])
    start = torch.cat([family.initial(7)[:trunk], own[trunk:]])
    end = walk(tasks, start, steps=steps, optimizer=optim.adam(3e-4 * steps), execution="sequential").theta
    episodes = np.array(tasks.outcomes()["episodes"][0], dtype=float)
    assert found["return_area"] == area(episodes, steps * 4 * 5) and len(episodes) > 4
    before, after = (float(tasks.score(theta)["test_return"]) for theta in (tasks.start(start[None]), end))
    assert found["test_return"] == after != before


def test_targets_have_environments_of_their_own() -> None:
    family = twins()
    trunk = family.initial(5)
    one, other = (walks(family).act(trunk, Item("acting", 0, task, SCRATCH)).numbers for task in (0, 1))
    assert one["return_area"] != other["return_area"]


def test_where_no_episode_ended_nothing_is_lost_or_won(tmp_path: Path) -> None:
    family = games(names=("catch", "follow"))  # an episode of follow has 32 steps
    store = Store(tmp_path, {})
    store.prepare()
    nothing = walks(family, steps=1).act(family.initial(0), Item("acting", 0, 1, SCRATCH))
    assert math.isnan(nothing.numbers["return_area"])
    for target, source in ((0, SCRATCH), (0, 1), (1, SCRATCH), (1, 0)):
        numbers = {"return_area": 2.0 * (source == SCRATCH) + target, "test_return": 5.0 - (source == SCRATCH)}
        held = nothing if (target, source) == (1, SCRATCH) else Result({}, numbers)
        store.save(Item("acting", 0, target, source), held)
    singles, matrices = returns_tables(Reader(store, Plan(seeds=(0,)), [0, 1]))
    assert matrices["area_lost"]["values"] == [[[None, 2.0], [None, None]]]
    assert singles["area_from_scratch"]["values"] == [[2.0, None]]
    assert matrices["return_lost"]["values"][0][0] == [None, -1.0]


def test_acting_needs_every_source_and_none_and_solutions_before() -> None:
    stages = items(("returns",), (0, 1), [3, 5])
    kinds = [{item.kind for item in stage} for stage in stages if stage]
    assert kinds == [{"solution"}, {"acting"}]
    acting = {(item.seed, item.target, item.source) for stage in stages for item in stage if item.kind == "acting"}
    assert acting == {(s, t, o) for s in (0, 1) for t in (3, 5) for o in (3, 5, SCRATCH) if t != o}


def test_acting_starts_from_the_sources_solution_or_from_the_initialization(tmp_path: Path) -> None:
    class Noted(Walks):
        def act(self, theta: torch.Tensor, item: Item) -> Result:
            noted[item] = theta
            return Result({}, {"return_area": 0.0, "test_return": 0.0})

    noted: dict[Item, torch.Tensor] = {}
    family = games(names=("catch", "follow"))
    store = Store(tmp_path, {})
    store.prepare()
    context = Context(family, Plan(**{**SMALL, "seeds": (0,), "epochs": 1.0, "refine_epochs": 1.0}), None, store)
    own = walks(family)
    one = Measuring(context, Noted(**vars(own)), ("returns",), range(2), ())
    one.carry_out()
    assert len(noted) == 4
    for item, theta in noted.items():
        expected = context.trunk(0) if item.source == SCRATCH else context.solution(0, item.source)
        assert torch.equal(theta, expected)
    assert not torch.equal(context.solution(0, 0)[:9], context.solution(0, 1)[:9])
