"""The script behind RESULTS.md's differences between methods, and what HAT's tasks own."""

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import save_file

from leap.run import EXTRA

FILE = Path(__file__).resolve().parent.parent / "scripts" / "multi_cv_findings.py"
spec = importlib.util.spec_from_file_location("multi_cv_findings", FILE)
findings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(findings)


def test_differences_and_shares(tmp_path, capsys):
    rows = ["held_out,learner,seed,test_error,train_error_auc"]
    for held, leap, none in (("a", (1, 3), (4, 4)), ("b", (5, 5), (6, 8)), ("c", (9, 9), (8, 8))):
        rows += [f"{held},leap,{seed},{value},1" for seed, value in enumerate(leap)]
        rows += [f"{held},none,{seed},{value},2" for seed, value in enumerate(none)]
    (tmp_path / "leave-one-out.csv").write_text("\n".join(rows))
    (tmp_path / "a" / "hat-seed0").mkdir(parents=True)
    # three tasks, a head of 2 + 1, stages of 2 and 1 channels; the second task was never visited
    embeddings = torch.tensor([[1.0, -1, -1], [1, 1, 1], [-1, -1, 1]])
    extra = torch.cat([torch.zeros(9), embeddings.flatten(), torch.tensor([1.0, 0, 1])])
    tensors = {"blocks.0.conv.bias": torch.zeros(2), "blocks.1.conv.bias": torch.zeros(1), EXTRA: extra}
    tensors |= {"head.weight": torch.zeros(1, 2), "head.bias": torch.zeros(1)}
    save_file(tensors, tmp_path / "a" / "hat-seed0" / "initialization.safetensors")
    findings.main(tmp_path)
    told = capsys.readouterr().out
    assert (
        "test error: leap - none: -1.00 [-5.30, 3.30], lower on 2 of 3" in told
    )  # -2, -2, 1: standard error 1, times 4.303
    assert "area: leap - none: -1.00 [-1.00, -1.00], lower on 3 of 3" in told
    assert "hat: tasks own 50% to 100% of a stage's channels" in told


def test_one_data_set_has_no_interval(tmp_path, capsys):
    (tmp_path / "leave-one-out.csv").write_text(
        "held_out,learner,seed,test_error,train_error_auc\na,leap,0,1,1\na,none,0,3,1\n"
    )
    findings.main(tmp_path)
    assert "test error: leap - none: -2.00, lower on 1 of 1" in capsys.readouterr().out
