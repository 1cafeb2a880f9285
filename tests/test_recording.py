"""What recording stands on: telling functions apart, tensors that stay in place, rehearsals without values."""

import pytest
import torch
from families import Waves

from leap import optim
from leap.capture import signature
from leap.recording import put
from leap.rehearsal import NotRecordable, rehearse


def test_functions_are_told_apart_by_what_they_close_over():
    assert signature(optim.sgd(0.1).update) == signature(optim.sgd(0.1).update)
    for other in (optim.sgd(0.2), optim.sgd(0.1, schedule=optim.cosine(3)), optim.sgd(0.1, momentum=0.5)):
        assert signature(optim.sgd(0.1).update) != signature(other.update)
    cosines = [optim.sgd(0.1, schedule=optim.cosine(k)).update for k in (3, 3, 4)]
    assert signature(cosines[0]) == signature(cosines[1]) != signature(cosines[2])
    tensors = [torch.zeros(2), torch.zeros(2)]
    holding = [lambda total, own=own: total + own for own in tensors]
    assert signature(holding[0]) != signature(holding[1])

    def again(depth):
        return again(depth - 1) if depth else 0

    assert signature(again) == signature(again)
    waves = [Waves(), Waves()]
    assert signature(waves[0].loss) == signature(waves[0].loss) != signature(waves[1].loss)


def test_values_can_be_put_in_any_order():
    static = [torch.arange(3.0), torch.arange(3.0) + 10, torch.arange(3.0) + 20]
    put(static, [static[2].flip(0), static[0], static[1]])
    assert [int(s[0]) for s in static] == [22, 0, 10]


def test_a_rehearsal_uses_no_tensor_from_elsewhere():
    here, meta = torch.ones(()), torch.empty(2, device="meta")
    with pytest.raises(NotRecordable, match="neither the walk's nor the state's"):
        rehearse(lambda state, i: state * here, meta, 3)
