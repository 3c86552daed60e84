"""What every test gets: fixed seeds, hypothesis settings, GPU tests skipped without a GPU.

torch keeps its default number of threads: a result that depends on it is a bug to meet here.
Set-up touches torch only when the test already imported it, so the pure rooms' tests stay fast.
"""

from __future__ import annotations

import random
import sys

import hypothesis
import numpy as np
import pytest

from ramify.core.env import sleep_while_waiting

sleep_while_waiting()

# `pytest --hypothesis-profile explore` draws fresh cases instead of the same ones each run
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("ci")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
