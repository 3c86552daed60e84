"""A group of 64 samples for reinforcement learning, as arrays that a trainer takes as they are.

    python examples/rl_group.py

The prompt is computed once for the whole group. Log-probabilities are those of the model itself,
which at temperature 1 and without filters is what the samples were drawn from. Advantages are
those of GRPO: the reward against the group's mean, in the group's standard deviations.
Source: Group Relative Policy Optimization (Shao et al. 2024, DeepSeekMath).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify import LLM, SamplingParams
from ramify.core.outputs import Usage
from ramify.zoo.tasks import Problem, get_task
from ramify.zoo.tasks.puzzle import prompt_of

GROUP_SIZE = 64
PAD = 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """One prompt with its samples; T is the length of the longest.

    Attributes:
        prompt_ids: [P] int64.
        token_ids: [64, T] int64, end-of-text included, padded with PAD.
        mask: [64, T] bool, False where padded.
        logprobs: [64, T] float32, natural log of each token given all before it; 0 where padded.
        rewards: [64] float32, what the checker said.
        advantages: [64] float32; all 0 where every sample got the same reward.
    """

    prompt_ids: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    logprobs: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]
    advantages: npt.NDArray[np.float32]
    usage: Usage


def sample_group(llm: LLM, problem: Problem, *, seed: int) -> Group:
    """Draw the group and lay it out."""
    params = SamplingParams(n=GROUP_SIZE, temperature=1.0, max_tokens=64, seed=seed)
    (output,) = llm.generate(problem.prompt, params)
    samples = output.outputs
    lengths = np.array([len(sample.token_ids) for sample in samples])
    mask = np.arange(lengths.max()) < lengths[:, None]
    token_ids = np.full(mask.shape, PAD, dtype=np.int64)
    logprobs = np.zeros(mask.shape, dtype=np.float32)
    token_ids[mask] = [token for sample in samples for token in sample.token_ids]
    logprobs[mask] = [x for sample in samples for x in sample.token_logprobs or ()]
    check = get_task(problem.task).check
    rewards = np.array([check(problem, sample.text).score for sample in samples], dtype=np.float32)
    return Group(
        prompt_ids=np.array(output.prompt_token_ids),
        token_ids=token_ids,
        mask=mask,
        logprobs=logprobs,
        rewards=rewards,
        advantages=advantages_of(rewards),
        usage=output.usage,
    )


def advantages_of(rewards: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[n] float32: distance from the mean in standard deviations."""
    spread = rewards.std()
    if spread == 0:
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / spread


def main(llm: LLM) -> Group:
    """Draw a group for a puzzle; prints what a trainer would get and returns it."""
    problem = Problem(task="puzzle", prompt=prompt_of((4, 7, 8, 2), 24))
    group = sample_group(llm, problem, seed=0)
    for name in ("prompt_ids", "token_ids", "mask", "logprobs", "rewards", "advantages"):
        array = getattr(group, name)
        print(f"{name:10} {array.shape!s:9} {array.dtype}")
    usage = group.usage
    print(f"mean reward {group.rewards.mean():.3f}, solved {np.mean(group.rewards == 1):.0%}")
    print(f"{usage.generated_tokens} tokens generated; {usage.computed_tokens} computed,")
    print(f"the prompt's {len(group.prompt_ids)} among them, once for all {GROUP_SIZE} samples")
    return group


if __name__ == "__main__":
    main(LLM("ramify-tiny"))
