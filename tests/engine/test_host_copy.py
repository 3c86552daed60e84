"""Results of steps on their way to the host: equal to what lies on the device, wherever it lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ramify.engine.draws import MOST_TOP, DrawnRows, Report
from ramify.engine.host_copy import HostCopy
from ramify.engine.packed import Packed

MOST_ROWS = 40
ORDER = ("tokens", "logprobs")


def arrays(room: int, *, is_packed: bool, order: tuple[str, str]) -> DrawnRows[torch.Tensor]:
    """Tokens and log-probabilities of `room` rows, in one buffer or apart."""
    dtypes = {"tokens": torch.int64, "logprobs": torch.float32}
    packed = Packed({name: (dtypes[name], room) for name in order})
    views = packed.views(torch.zeros(packed.num_bytes, dtype=torch.uint8))
    if not is_packed:
        views = {name: view.clone() for name, view in views.items()}
    return DrawnRows(views["tokens"], views["logprobs"], None)


def redraw(drawn: DrawnRows[torch.Tensor]) -> None:
    """A replayed step leaves other results in the same place."""
    drawn.tokens.random_(0, 2**40)
    drawn.logprobs.normal_()


@pytest.mark.parametrize("room", [MOST_ROWS, 4 * MOST_ROWS])  # of which the last is too far apart
@pytest.mark.parametrize("order", [ORDER, ORDER[::-1]])
@pytest.mark.parametrize("is_packed", [True, False])
def test_steps_in_turn(room: int, is_packed: bool, order: tuple[str, str]) -> None:
    """Two copies take turns over one source; numbers of rows come and go."""
    drawn = arrays(room, is_packed=is_packed, order=order)
    other = arrays(room, is_packed=is_packed, order=order)
    copies = [HostCopy(MOST_ROWS, on_gpu=False) for _ in range(2)]
    wanted = []
    for step, rows in enumerate([7, 7, 7, MOST_ROWS, MOST_ROWS, 1, 7, 7]):
        source = other if step == 4 else drawn
        redraw(source)
        copies[step % 2].send(source, rows)
        wanted.append((source.tokens[:rows].numpy().copy(), source.logprobs[:rows].numpy().copy()))
        for back in range(min(step + 1, 2)):  # the one before is still there
            found = copies[(step - back) % 2].read()
            assert found.report is None
            np.testing.assert_array_equal(found.tokens, wanted[-1 - back][0])
            np.testing.assert_array_equal(found.logprobs, wanted[-1 - back][1])


def test_reports_come_and_go() -> None:
    copy, plain = HostCopy(MOST_ROWS, on_gpu=False), arrays(9, is_packed=True, order=ORDER)
    ranks = torch.arange(9, dtype=torch.int32)
    top = torch.arange(9 * 2 * MOST_TOP, dtype=torch.int32).reshape(9, 2, MOST_TOP)
    told = plain._replace(report=Report(ranks, top))
    for _ in range(2):
        copy.send(told, 5)
        report = copy.read().report
        assert report is not None
        np.testing.assert_array_equal(report.ranks, np.arange(5))
        np.testing.assert_array_equal(report.top, top[:5].numpy())
        copy.send(plain, 5)
        assert copy.read().report is None
