"""What starting took, against the clock around it and the sizes counted by hand."""

from __future__ import annotations

import time

from ramify import LLM
from ramify.testing.models import save_tiny_llama


def test_times_fill_the_start_and_sizes_are_the_models(tmp_path):
    parameters = save_tiny_llama(tmp_path).num_parameters()
    begin = time.perf_counter()
    llm = LLM(str(tmp_path), num_slots=100)
    took_s = time.perf_counter() - begin
    start = llm.startup
    assert 0 < start.total_s < took_s
    assert min(start.weights_s, start.pool_s, start.kernels_s) > 0
    assert start.weight_bytes == 4 * parameters
    assert start.kv_pool_bytes == 100 * 2 * 2 * 2 * 16 * 4  # K and V, layers, KV heads, head_dim
    assert (start.num_slots, start.step_bytes) == (100, 0)
    assert "100 slots" in str(start)
