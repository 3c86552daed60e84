"""Particle filtering over steps: sequential Monte Carlo steering (Lew et al. 2023), weighted by
values as in Puri et al., *Rollout Roulette* (2025).

Beams keep what a fallible scorer ranks first and lose the rest for good. Particles are resampled in
proportion to what the scorer believes, so a step that looks poor survives now and then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.core.seeds import mix64
from ramify.search.step_search import StepSearch, check_sizes
from ramify.search.thought import Expansion, Thought
from ramify.search.tree import TreeView

MAX_ODDS = 1e6
"""Of a particle whose value is 1; the inverse for one whose value is 0."""


@dataclass(kw_only=True, eq=False)
class ParticleFilter(StepSearch):
    """Extend `width` particles by a step, weigh each by its value's odds, resample, repeat.

    Odds v / (1 - v) are what a softmax over the logits of the values gives. Answers stay in the
    population and grow no more; what breaks the rules has no weight. Copies are no waste here: a
    particle drawn c times is one node expanded by c. Every step waits for all particles.
    """

    keeps_copies: ClassVar[bool] = True

    width: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(width=self.width)
        self._particles: list[Thought] = []  # a thought once for each particle there
        self._num_draws = 0

    def _begin(self, tree: TreeView) -> None:
        self._particles = []
        self.growth.expand(tree, self.root, self.width)

    def _go_on(self, tree: TreeView, expansion: Expansion) -> None:
        self._particles.extend(expansion.made)

    def _idle(self, tree: TreeView) -> None:
        particles = sorted(self._particles, key=lambda thought: thought.node)
        if any(not thought.is_answer for thought in particles):
            self._resample(tree, particles)
        if not self.growth.is_busy:
            super()._idle(tree)

    def _resample(self, tree: TreeView, particles: Sequence[Thought]) -> None:
        """Draw the next population, and let those that are no answers grow."""
        seed = tree[tree.root].seed ^ mix64(self._num_draws)
        self._num_draws += 1
        weights = [odds(thought.value) for thought in particles]
        drawn = Counter(systematic(weights, self.width, mix64(seed) / 2.0**64))
        counts: Counter[Thought] = Counter()
        for place, count in drawn.items():
            counts[particles[place]] += count
        for thought in dict.fromkeys(particles):
            if not counts[thought]:
                self.growth.prune(tree, thought)
            elif not thought.is_answer:
                self.growth.expand(tree, thought, counts[thought])
        self._particles = [t for t in counts.elements() if t.is_answer]


def odds(value: float) -> float:
    """value / (1 - value), bounded; values outside of [0, 1] count as its ends."""
    value = min(max(value, 0.0), 1.0)
    ratio = value / (1.0 - value) if value < 1.0 else MAX_ODDS
    return min(max(ratio, 1.0 / MAX_ODDS), MAX_ODDS)


def systematic(weights: Sequence[float], count: int, uniform: float) -> list[int]:
    """Systematic resampling (Carpenter et al. 1999): places drawn by one number in [0, 1).

    A place of share s is drawn floor(count * s) times or once more.
    """
    share, place, drawn = weights[0] / sum(weights), 0, []
    for i in range(count):
        while (i + uniform) / count >= share and place + 1 < len(weights):
            place += 1
            share += weights[place] / sum(weights)
        drawn.append(place)
    return drawn
