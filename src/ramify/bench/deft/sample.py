"""Which steps of a workload are timed, and how many steps each of them stands for.

Steps are the middles of equal spans. Recorded searches jump as branches come and go, so equal
weights can be several percent off; weights are therefore moved, as little as possible, until the
steps stand for exactly as many rows, unique tokens and path tokens as the workload has. A time that
is linear in these is then summed without error (calibration of a survey's weights, Deville and
Särndal 1992).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ramify.bench.attention.shapes import TreeShape
from ramify.bench.deft.workloads import Workload

SMOOTH_POINTS = 8  # of a workload that grows evenly


def sampled_steps(workload: Workload, points: int) -> list[int]:
    """The middles of `points` equal spans of steps; fewer where the workload grows evenly."""
    points = min(points, workload.num_steps, SMOOTH_POINTS if workload.is_smooth else points)
    return [(2 * point + 1) * workload.num_steps // (2 * points) for point in range(points)]


def step_weights(workload: Workload, steps: Sequence[int]) -> list[float]:
    """How many steps each of `steps` stands for; they add up to all."""
    sizes = np.array([_sizes(state) for state in workload.states()])
    scale = sizes.max(axis=0)
    chosen, total = sizes[list(steps)] / scale, sizes.sum(axis=0) / scale
    equal = workload.num_steps / len(steps)
    missing = total - equal * chosen.sum(axis=0)
    move = np.linalg.lstsq(equal * chosen.T @ chosen, missing, rcond=None)[0]
    weights: npt.NDArray[np.float64] = equal * (1.0 + chosen @ move)
    return weights.tolist()


def _sizes(state: TreeShape) -> tuple[int, int, int, int]:
    """One step, its rows, unique tokens and path tokens; parents come before their children."""
    end: list[int] = []
    for above, tokens in zip(state.parent, state.length, strict=True):
        end.append(tokens + (end[above] if above >= 0 else 0))
    path_tokens = sum(end[node] for node in state.query_node)
    return 1, len(state.query_node), sum(state.length), path_tokens
