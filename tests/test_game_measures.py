"""Distances and scores of games: against mathematics, from end to end, and told beside the outcome the right way up."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_game_data import games
from tiny_measurable import SMALL, entries

from envs.tiny import TINY
from leap import optim
from leap.cli import main
from leap.measure.context import Context
from leap.measure.measuring import Measuring
from leap.measure.network import Network
from leap.measure.paths import Walks
from leap.measure.plan import SCRATCH, Item, Plan
from leap.measure.relations import predictions
from leap.measure.store import Store
from leap.metrics.fisher import fisher_diagonal
from leap.metrics.hscore import h_score
from leap.report import choice
from leap.report.findings import Score
from leap.report.measures import read_measures
from leap.report.returns_curves import area
from leap.report.transfer import source_tables, task_tables
from tasks.game_data import Imitation
from tasks.games import Games

TWINS = {"catch": "catch", "twin": "catch", "follow": "follow"}  # a game under two names


def measuring(folder: Path, family: Games, distances: tuple[str, ...], **plan: Any) -> Measuring:
    store = Store(folder, {})
    store.prepare()
    context = Context(family, Plan(**{**SMALL, "seeds": (0,), **plan}), None, store)
    walks = Walks(
        family, {"none": (family.initial(0), None)}, lambda steps: optim.adam(0.003), 8, 0, "test", "sequential"
    )
    return Measuring(context, walks, distances, range(len(family.names)), ())


# Mathematics


@pytest.fixture(scope="module")
def learned() -> Games:
    """Catch, its twin and follow, with agents that have learned something."""
    how = Imitation(steps=24_000, examples=600, spacing=4)
    return games(how, tuple(TWINS), make=lambda name, count: TINY[TWINS[name]](count), environments=16)


def test_one_game_under_two_names_is_nearer_to_itself_than_to_another(learned: Games, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 8.0, "refine_epochs": 4.0, "rate": 0.03, "batch_size": 50}
    one = measuring(tmp_path, learned, ("fisher", "task2vec"), **settings)
    one.carry_out()
    for name in ("fisher", "task2vec"):
        (distance,) = entries(one.document(), name)
        assert float(distance.diagonal().abs().max()) < 1e-7
        for game, twin in ((0, 1), (1, 0)):
            assert float(distance[game, twin]) < 0.9 * float(distance[game, 2]), (name, distance)


def test_the_features_of_the_agent_of_reference_tell_its_actions_better_than_random_ones(learned: Games) -> None:
    for task in (0, 1):  # whether to follow a mark to the left or to the right, any features tell
        agent, data = learned.imitations.of(task)
        trunks = [agent[: learned.layout.trunk], *(learned.initial(s)[: learned.layout.trunk] for s in range(3))]
        for amount in (None, "ledoit-wolf"):
            reports = (h_score(learned.features(t, data.inputs), data.labels, shrinkage=amount) for t in trunks)
            own, *random = map(float, reports)
            assert own > max(random) + 0.05, (learned.name(task), own, random)


def test_the_fisher_information_of_an_imitation_is_that_of_explicit_gradients() -> None:
    """The mean over states of E_a |d log pi(a | s)|^2, with autograd one state and one action at a time."""
    family = games()
    inputs, network = family.dataset(0).inputs[:3], Network(family, (3,))
    theta = network.start(family.initial(4)[: family.layout.trunk]).double()
    theta[network.shared :] = 0.1 * torch.randn(3 * (family.width + 1), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(theta)
    for one in inputs:
        for action in range(3):
            point = theta.clone().requires_grad_()
            score = network.logits(point, one[None]).log_softmax(-1)[0, action]
            (slope,) = torch.autograd.grad(score, point)
            expected += score.detach().exp() * slope.square() / len(inputs)
    torch.testing.assert_close(fisher_diagonal(network.logits, theta, inputs), expected, rtol=1e-9, atol=1e-14)


# Learning a game from another one's solution


def test_what_is_lost_is_what_learning_from_scratch_is_ahead(tmp_path: Path) -> None:
    one = measuring(tmp_path, games(names=("catch", "seek", "sprint")), ("returns",), epochs=1.0, refine_epochs=1.0)
    one.carry_out()
    document = one.document()
    held = [[one.context.store.load(Item("acting", 0, t, o)).numbers for o in (SCRATCH, 0, 1, 2) if o != t]
            for t in range(3)]  # fmt: skip
    lost, alone = entries(document, "area_lost")[0], document["singles"]["area_from_scratch"]["values"][0]
    for target, (scratch, *others) in enumerate(held):
        assert alone[target] == scratch["return_area"] and math.isnan(lost[target, target])
        found = lost[target][torch.arange(3) != target].tolist()
        assert found == [scratch["return_area"] - other["return_area"] for other in others]
    assert document["matrices"]["return_lost"]["kind"] == "outcome" and document["distances"] == ["returns"]


def test_a_target_meets_the_same_whatever_the_source(tmp_path: Path) -> None:
    """From equal trunks it is the same walk, so nothing is lost; from another one it is not."""
    family = games(names=("catch", "follow"))
    walks = measuring(tmp_path, family, ("returns",)).walks
    trunk = family.initial(5)[: family.layout.trunk]
    found = [walks.act(trunk, Item("acting", 0, 1, source)).numbers for source in (SCRATCH, 0)]
    assert found[0] == found[1]
    assert walks.act(family.initial(6), Item("acting", 0, 1, 0)).numbers != found[0]
    assert walks.act(trunk, Item("acting", 1, 1, 0)).numbers != found[0]


# From end to end

CONFIG = Path(__file__).parents[1] / "configs" / "tiny-games.yaml"
SMALLER = {
    "train.inner_steps": 4, "train.meta_steps": 1, "train.meta_batch": 2, "train.execution": "sequential",
    "evaluate.steps": 8, "evaluate.repetitions": 2, "tasks.evaluation_episodes": 4, "tasks.environments": 8,
    "tasks.reference_steps": 600, "tasks.reference_examples": 48, "tasks.reference_labels": "drawn",
    "tracking": "none", **{f"measure.{key}": value for key, value in SMALL.items()},
}  # fmt: skip
TEST = ("mirror", "sprint", "rally", "follow")


def flags(**changes: Any) -> list[str]:
    words = []
    for name, value in (SMALLER | {"tasks.train": ("catch", "seek"), "tasks.test": TEST} | changes).items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Leap on tiny games, measured on two of the four held out, its walks and scores on all."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(folder / "cache"))
        assert main.main(["train", str(CONFIG), "--out", str(folder / "run"), *flags()]) == 0
        assert main.main(["evaluate", str(folder / "run")]) == 0
        measured = ["--distances", "path", "fisher", "task2vec", "reachability", "convergence", "dynamic", "returns"]
        more = ["--tasks", "mirror", "sprint", "--transferability", "all"]
        assert main.main(["measure", str(folder / "run"), *measured, *more]) == 0
    return folder / "run"


def held(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "measures" / "measures.json").read_text())
    return found


def test_all_that_is_measured_of_images_is_measured_of_games(run: Path) -> None:
    document = held(run)
    assert document["tasks"] == ["mirror", "sprint"] and document["family"] == "tiny_games"
    for name in (
        "fisher",
        "task2vec",
        "reachability",
        "epochs",
        "action",
        "area_lost",
        "return_lost",
        "parc",
    ):
        found = entries(document, name)
        assert found.shape == (2, 2, 2)
        own = torch.eye(2, dtype=torch.bool)
        assert bool(found[:, ~own].isfinite().all()), name


def test_the_outcome_of_a_game_is_its_return(run: Path) -> None:
    """Not the losses of actor-critics; and the same walks as the evaluation's, whose seeds they share."""
    paths, evaluation = held(run)["paths"], json.loads((run / "evaluation.json").read_text())
    for start in ("leap", "none"):
        found, walked = paths["initializations"][start], evaluation["initializations"][start]
        assert not {"test_loss", "train_loss_auc", "test_error", "path_length_until"} & set(found)
        assert found["test_return"] == [walked["test_return"][seed] for seed in (0, 1)]
        budget = 8 * 8 * 5
        expected = [[area(np.array(e).reshape(-1, 3), budget) for e in row] for row in walked["episodes"]]
        assert np.allclose(np.array(found["return_area"], dtype=float), expected, equal_nan=True)


def test_scores_foretell_returns_in_tables_of_the_report(run: Path) -> None:
    measures = read_measures(run / "measures" / "measures.json")
    assert [table.y for table in task_tables(measures)][:1] == ["test_return"]
    assert main.main(["report", str(run), "--out", str(run / "report.html")]) == 0
    page = (run / "report.html").read_text()
    assert "test return" in page and "What predicts test return" in page


def test_the_terminal_tells_returns(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.setenv("LEAP_CACHE", str(run.parent / "cache"))
    monkeypatch.setattr("leap.report.measures.write_measures", lambda document, folder: [])
    monkeypatch.setattr(Measuring, "work", lambda self, item: pytest.fail(f"{item} is measured again"))
    assert main.main(["measure", str(tmp_path / "run"), "--distances", "path", "--transferability", "all"]) == 0
    told = capsys.readouterr().out
    assert "test_return  return_area" in told and "foretell of test_return" in told


def test_paths_alone_need_no_agent_of_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.game_data.learned", lambda *given: pytest.fail("an agent learns"))
    monkeypatch.setattr("leap.report.measures.write_measures", lambda document, folder: [])
    none = str(CONFIG.parent / "learner" / "none.yaml")
    words = ["measure", str(CONFIG), none, "--out", str(tmp_path / "run"), "--distances", "path"]
    assert main.main([*words, *flags(**{"measure.seeds": 0})]) == 0
    assert set(held(tmp_path / "run")["paths"]["initializations"]) == {"none"}


def test_another_reference_may_be_asked_for_but_not_mixed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["measure", str(run), "--distances", "path", "--tasks.reference_steps", "700"]) == 2
    told = capsys.readouterr().err
    assert "measured differently" in told and "tasks.reference_steps: 600 there, 700 now" in told
    assert main.main(["measure", str(run), "--distances", "path", "--tasks.discount", "0.5"]) == 2
    assert "started with other settings" in capsys.readouterr().err


def test_returns_are_of_games(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(CONFIG.parent / name) for name in ("quickstart.yaml", "learner/none.yaml")]
    words = [*files, "--out", str(tmp_path / "run"), "--tracking", "none", "--distances", "returns"]
    assert main.main(["measure", *words]) == 2
    assert "--distances returns is of games, which" in capsys.readouterr().err


# The right way up


def foretold(x: list[float], y: str, values: list[float]) -> float:
    held = {"h_score": [x], y: [values], "path_length": [[-a for a in x]]}
    document = {
        "paths": {"tasks": list("abcd"), "initializations": {"leap": held}},
        "scores": [{"name": "h_score"}],
    }
    rows = {one["x"]: one for one in predictions(document, {})}
    assert rows["path_length"]["spearman"]["value"] == rows["h_score"]["spearman"]["value"]
    return float(rows["h_score"]["spearman"]["value"])


def test_a_score_that_grows_with_the_return_predicts_it() -> None:
    up, down = [0.1, 0.2, 0.3, 0.4], [9.0, 5.0, 3.0, -1.0]
    assert foretold(up, "test_return", down[::-1]) == 1 and foretold(up, "test_return", down) == -1
    assert foretold(up, "return_area", down[::-1]) == 1
    assert foretold(up, "test_error", down) == 1  # errors are the other way round


def test_the_initialization_with_the_highest_return_is_the_best_choice() -> None:
    """Three candidates, three tasks, a score that is the return: no regret, whatever its sign would say."""
    values = np.array([[[1.0, 2.0, 5.0], [7.0, 1.0, 0.0], [3.0, 4.0, 2.0]]])  # [S, T, C]
    score = Score("h_score", "H-score", "1", False)

    class Held(choice.Candidate):
        def values(self, key: str, targets: Any, seeds: Any) -> np.ndarray | None:
            return values[..., int(self.label)]

    held = [Held(str(number), "leap", {}, (0,), (score,)) for number in range(3)]
    targets = [(0, task) for task in "abc"]
    (row,) = choice._table(held, "test_return", values, targets, [0]).rows
    assert row.figure("spearman") == 1 and row.found["regret"]["mean"] == 0 and row.found["top1"]["hits"] == 3
    (row,) = choice._table(held, "test_loss", values, targets, [0]).rows
    assert row.figure("spearman") == -1 and row.found["regret"]["mean"] > 0


def test_the_main_outcome_of_sources_is_what_was_played(run: Path) -> None:
    measures = read_measures(run / "measures" / "measures.json")
    assert measures.matrices["area_lost"].kind == "outcome" and source_tables(measures) == []  # of two tasks
    from leap.report.transfer import main_outcome

    found = main_outcome(measures)
    assert found is not None and found.name == "area_lost"
