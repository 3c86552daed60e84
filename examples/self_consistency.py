"""Self-consistency on questions about documents: many samples of one question, one vote.

    python examples/self_consistency.py

Questions need two hops: a passage says that a fact is that of another thing. The bundled model
answers all of them when it decodes greedily, so the samples are drawn very hot: alone they err, and
the vote is right all the same. The document is computed once for all samples.
Source: Self-Consistency (Wang et al., ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ramify import LLM, SamplingParams
from ramify.core.outputs import SearchResult
from ramify.zoo.tasks import Problem, get_task

NUM_QUESTIONS = 8
NUM_SAMPLES = 16
TEMPERATURE = 3.0


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question with what the samples and their vote said."""

    problem: Problem
    result: SearchResult
    sample_accuracy: float
    is_right: bool


def draw_questions(seed: int) -> list[Problem]:
    """Questions about documents that training never saw."""
    rng = np.random.default_rng(seed)
    family = get_task("documents")
    return [
        family.generate(rng, heldout=True, hops=2, num_tokens=400) for _ in range(NUM_QUESTIONS)
    ]


def answer(llm: LLM, problem: Problem) -> Answered:
    """Let samples vote on one question."""
    params = SamplingParams(n=NUM_SAMPLES, temperature=TEMPERATURE, max_tokens=4, stop="\n", seed=0)
    result = llm.search(problem.prompt, "self_consistency", params=params, answer=str.strip)
    check = get_task("documents").check
    right = [check(problem, sample.text).solved for sample in result.outputs]
    return Answered(
        problem=problem, result=result, sample_accuracy=float(np.mean(right)), is_right=right[0]
    )


def main(llm: LLM) -> list[Answered]:
    """Answer every question; prints and returns what came."""
    found = [answer(llm, problem) for problem in draw_questions(seed=0)]
    for one in found:
        question = one.problem.prompt.rsplit("\n", 1)[1]
        best = one.result.best
        assert best is not None and best.score is not None, "samples vote"
        print(
            f"{question}{best.text}  ({best.score:.0%} of {NUM_SAMPLES} votes, "
            f"{'right' if one.is_right else 'wrong'}; "
            f"KV read {one.result.usage.kv_saving:.1f} times less than sample by sample)"
        )
    samples = np.mean([one.sample_accuracy for one in found])
    votes = np.mean([one.is_right for one in found])
    print(f"a sample alone is right {samples:.0%} of the time, the vote {votes:.0%}")
    return found


if __name__ == "__main__":
    main(LLM("ramify-tiny"))
