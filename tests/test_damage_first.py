"""What cannot be read is refused before hours go into what would be lost on it, and in words of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from leap import learners, load, optim
from leap.cli import sweep
from leap.cli.endings import SIGNALS
from leap.cli.main import main
from leap.cli.places import Place
from leap.errors import RunError
from leap.report.evaluation import read_evaluation
from leap.resumption import Keeper
from leap.run import pack, unpack
from leap.walk import walk

QUICK = ["--train.meta-steps", "1", "--train.inner-steps", "2", "--train.meta-batch", "2", "--tracking", "none"]
QUICK += ["--evaluate.repetitions", "1", "--evaluate.steps", "2"]
SWEEP = [
    "compare",
    "quadratic",
    *QUICK,
    "--compare.learners",
    "none",
    "--compare.seeds",
    "0",
    "1",
    "--compare.jobs",
    "1",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was trained and evaluated."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quadratic", *QUICK, "--out", "run"]) == 0
    assert main(["evaluate", "run"]) == 0
    return Path("run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("measures/measures.json", "null", "format 'NoneType'"),
        ("measures/measures.json", "{", "is damaged or cut short"),
        ("provenance.json", "\0", "is damaged or cut short"),
        ("provenance.json", "[]", "not a mapping"),
        ("metrics.jsonl", "no row\n", "is not a row of metrics"),
    ],
)
def test_an_evaluation_is_not_begun_beside_what_cannot_be_read(
    name: str, content: str, told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    before = contents(run)
    assert main(["evaluate", "run"]) == 1
    assert told in capsys.readouterr().err
    assert contents(run) == before


def test_a_damaged_evaluation_is_no_reason_not_to_evaluate(run: Path) -> None:
    (run / "evaluation.json").write_text("{")
    assert main(["evaluate", "run"]) == 0
    assert json.loads((run / "evaluation.json").read_text())["format"] == 1


def test_a_comparison_reads_its_runs_before_it_goes_on_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SWEEP, "--out", "all"]) == 0
    Path("all/none-seed1/evaluation.json").unlink()
    Path("all/none-seed0/provenance.json").write_bytes(b"\xe1")
    before = contents(Path("all"))
    assert main([*SWEEP, "--out", "all"]) == 1
    assert "all/none-seed0/provenance.json" in capsys.readouterr().err
    assert contents(Path("all")) == before


@pytest.mark.parametrize("value", ["1e999", '"many"'])
@pytest.mark.parametrize("key", ["pretraining_tasks", "steps", "seed"])
def test_numbers_that_no_evaluation_has_are_refused(key: str, value: str, run: Path) -> None:
    file = run / "evaluation.json"
    told = json.loads(file.read_text())
    del told[key]
    file.write_text(json.dumps(told)[:-1] + f', "{key}": {value}}}')
    with pytest.raises(RunError, match=r"Write it anew: leap evaluate run"):
        read_evaluation(file)


def test_figures_that_no_float_holds_are_refused(run: Path) -> None:
    file = run / "evaluation.json"
    told = json.loads(file.read_text())
    told["initializations"]["leap"]["path_length"][0][0] = 10**400
    file.write_text(json.dumps(told))
    with pytest.raises(RunError, match="path_length is not a table of numbers"):
        read_evaluation(file)


@pytest.mark.parametrize(
    "forge, told",
    [
        (lambda tensors: tensors.pop("path_energy"), "holds no path_energy"),
        (lambda tensors: tensors.update(path_energy=torch.ones(3)), "holds path_energy of shape [3], not [10]"),
    ],
)
def test_an_item_that_is_not_what_others_are_is_removed_and_measured_anew(
    forge: Callable[[dict[str, torch.Tensor]], object], told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["measure", "run", "--distances", "path", "--measure.seeds", "0", "1"]
    assert main(words) == 0
    whole = json.loads((run / "measures" / "measures.json").read_text())
    item = min((run / "measures" / "items").glob("walk-1-*.safetensors"))
    tensors, about = unpack(item)
    forged = dict(tensors)
    forge(forged)
    item.write_bytes(pack(forged, {key: about[key] for key in ("key", "numbers")}))
    assert main(words) == 1
    assert f"{item} {told}; it was removed: repeat the command" in capsys.readouterr().err
    assert not item.exists()
    assert main(words) == 0 and load_file(item).keys() == tensors.keys()
    assert json.loads((run / "measures" / "measures.json").read_text())["paths"] == whole["paths"]


class Bowl:
    """Two parameters or five, as one likes."""

    last: int | None = None

    def __init__(self, tasks: int) -> None:
        self.size = tasks

    def sample(self, theta: torch.Tensor, step: int) -> torch.Tensor:
        if step == self.last:
            raise InterruptedError
        return torch.zeros(self.size)

    def loss(self, theta: torch.Tensor, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        return theta.square().sum(), {}


def test_a_kept_walk_whose_folds_are_of_another_size_is_told(tmp_path: Path) -> None:
    """Its digest fits, so that someone made it."""
    path = tmp_path / "walk.safetensors"

    def attempt(last: int | None) -> None:
        keeper, tasks = Keeper(path, every=2), Bowl(3)
        keeper.open("test", torch.device("cpu"))
        tasks.last = last
        folds = {"leap": learners.leap()}
        walk(tasks, torch.ones(5), steps=6, optimizer=optim.sgd(0.1), folds=folds, keep=keeper)

    with pytest.raises(InterruptedError):
        attempt(last=4)
    tensors, _ = unpack(path)
    document = json.loads(tensors["document"].numpy().tobytes())
    folds = next(value for key, value in document["walk"]["dict"] if key == "folds")
    names = [name for name in tensors if json.dumps(name) in json.dumps(folds) and tensors[name].shape == (3, 5)]
    assert names
    path.write_bytes(pack(tensors | {name: tensors[name][:, :2].contiguous() for name in names}, {}))
    with pytest.raises(RunError, match=r"walk\.safetensors holds another walk .*; remove it"):
        attempt(last=None)
    path.unlink()
    attempt(last=None)


def test_a_walk_that_was_kept_at_its_end_is_doubted_there(tmp_path: Path) -> None:
    keeper, tasks, folds = Keeper(tmp_path / "walk.safetensors", every=2), Bowl(3), {"leap": learners.leap()}
    keeper.open("test", torch.device("cpu"))

    def end(*given: Any) -> Any:
        raise InterruptedError

    ended = folds["leap"]._replace(finish=end)
    with pytest.raises(InterruptedError):
        walk(tasks, torch.ones(5), steps=4, optimizer=optim.sgd(0.1), folds={"leap": ended}, keep=keeper)
    tensors, _ = unpack(keeper.path)
    small = {name: held[:, :2].contiguous() for name, held in tensors.items() if held.shape == (3, 5)}
    document = json.loads(tensors["document"].numpy().tobytes())
    theta = next(value["tensor"] for key, value in document["walk"]["dict"] if key == "theta")
    small.pop(theta)
    assert small
    keeper.path.write_bytes(pack(tensors | small, {}))
    keeper = Keeper(keeper.path, every=2)
    keeper.open("test", torch.device("cpu"))
    with pytest.raises(RunError, match=r"walk\.safetensors holds another walk .*; remove it"):
        walk(tasks, torch.ones(5), steps=4, optimizer=optim.sgd(0.1), folds=folds, keep=keeper)


def test_an_error_later_in_a_walk_is_its_own(tmp_path: Path) -> None:
    class Late(Bowl):
        def loss(self, theta: torch.Tensor, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
            raise RuntimeError("of the task")

    keeper = Keeper(tmp_path / "walk.safetensors", every=2)
    keeper.open("test", torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"^of the task$"):
        walk(Late(3), torch.ones(5), steps=6, optimizer=optim.sgd(0.1), keep=keeper)


@pytest.mark.parametrize("words", [["dashboard", "run", "--out", "-0.5"], ["report", "run", "--out=-x.html"]])
def test_a_path_does_not_begin_as_an_option_does(
    words: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(Path("."))
    assert main(words) == 2
    assert "--out needs a path, got '-" in capsys.readouterr().err
    assert contents(Path(".")) == before


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_features_too_large_for_a_score_are_told(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = np.random.default_rng(0).normal(size=(24, 4)) * 1e305
    np.savez(tmp_path / "x.npz", features=features, labels=np.arange(24) % 3)
    assert main(["score", str(tmp_path / "x.npz"), "--scores", "sfda", *more]) == 2
    assert "features must differ by more than 0 and less than 1e+300" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["project", "entity"])
def test_a_wandb_name_that_is_none_is_told(key: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["wandb"] = {**(config.get("wandb") or {}), key: -7}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["dashboard", "run"]) == 1
    assert f"wandb.{key} -7, which is not a name" in capsys.readouterr().err


def test_an_encrypted_file_of_arrays_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", features=np.ones((4, 2)), labels=np.arange(4))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    assert main(["score", str(tmp_path / "x.npz")]) == 1
    assert "cannot be read as .npz (File 'features.npy' is encrypted" in capsys.readouterr().err


def test_loading_does_not_wait_for_a_pipe(run: Path) -> None:
    (run / "initialization.safetensors").unlink()
    os.mkfifo(run / "initialization.safetensors")
    with pytest.raises(RunError, match=r"initialization\.safetensors is neither a file nor a folder"):
        load(run)


@pytest.mark.parametrize(
    "text, told",
    [
        (
            '{"inner": {"\\u00e9\\ud834\\udd1e": null}}',
            "inner.\u00e9\U0001d11e (x.yaml, line 1): there is no such setting",
        ),
        ('{"inner": {"\\ud834": null}}', "half a character"),
    ],
)
def test_a_setting_s_name_may_be_written_in_halves_and_not_be_half(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    assert main(["train", "quadratic", "x.yaml", "--print-config"]) == 2
    assert told in capsys.readouterr().err


class Gone:
    """A connection to nobody."""

    def recv(self) -> Any:
        raise EOFError


class Signalled:
    """A connection over which nothing comes before a signal does, and another while that is dealt with."""

    def recv(self) -> Any:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("connection", [Gone(), Signalled()])
def test_a_worker_that_ends_hears_no_signals_any_more(connection: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one, that came after the run was saved, would show a traceback."""
    names = [name for name in (*SIGNALS, "SIGINT") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    monkeypatch.setattr(sweep, "settle", lambda place: None)
    try:
        sweep._serve(connection, Place((), 1), True, 0)  # type: ignore[arg-type]
        assert {signal.getsignal(getattr(signal, name)) for name in names} == {signal.SIG_IGN}
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
