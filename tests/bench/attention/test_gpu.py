"""On a GPU: a captured graph owns what it reads, and replays are what is timed."""

from __future__ import annotations

import pytest
import torch

from ramify.bench.attention.timers import GraphTimer

pytestmark = pytest.mark.gpu


def test_a_graph_keeps_its_inputs_alive() -> None:
    timer = GraphTimer(torch.device("cuda"))

    def make():
        inputs = torch.arange(1 << 20, device="cuda", dtype=torch.float32)
        return timer.ready(lambda: inputs * 2)

    run, out = make()
    # would land in the memory of the inputs if nobody held them
    junk = [torch.full((1 << 20,), 7.0, device="cuda") for _ in range(8)]
    out.zero_()
    run()
    timer.synchronize()
    assert out[-1].item() == 2 * ((1 << 20) - 1), len(junk)
    samples = timer.measure({"twice": run}, 5)["twice"]
    assert len(samples) == 5 and min(samples) > 0
