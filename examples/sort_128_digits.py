"""Sorting 128 digits by graph of thoughts: split, sort, merge, K branches for every thought.

    python examples/sort_128_digits.py

What the model does: it sorts parts of 16 digits and merges two lists of up to 32 digits together,
the longest it was trained on. Every thought is sampled K times.
What code does: it splits, it scores every answer by an exact checker and keeps the best, and it
joins lists that are longer than the model can merge by Batcher's odd-even rule: the model merges
the digits in even places, then those in odd places, and code swaps neighbours that are in the wrong
order.
Sources: Graph of Thoughts (Besta et al., AAAI 2024), whose sorting plan this is; odd-even merge
(Batcher, AFIPS 1968).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from ramify import LLM, SamplingParams
from ramify.zoo.steps import SortPlan, check_part

NUM_DIGITS = 128
PART_DIGITS = 16
BLOCK_DIGITS = 32  # the longest list the model was trained to write
K = 4
ATTEMPTS = 3


def draw_digits(seed: int) -> list[str]:
    """128 random digits."""
    rng = random.Random(seed)
    return [str(rng.randrange(10)) for _ in range(NUM_DIGITS)]


def sort_block(llm: LLM, digits: Sequence[str], spent: Counter[str]) -> list[str]:
    """Sort at most 32 digits: two parts side by side, then their merge, in one tree."""
    tokenizer = llm.engine.live.codec.tokenizer
    assert tokenizer is not None, "the bundled model has a tokenizer"
    result = llm.search(
        [tokenizer.bos_token_id],
        "got",
        params=SamplingParams(max_tokens=2 * BLOCK_DIGITS, seed=0),
        plan=SortPlan(digits=digits, part_digits=PART_DIGITS),
        scorer=check_part,
        k=K,
        attempts=ATTEMPTS,
    )
    spent["thoughts"] += int(result.stats["operations"])
    spent["tokens"] += result.usage.generated_tokens
    assert result.best is not None and result.solved, "no branch passed the checker"
    return result.best.text.partition("\n")[2].split()


def merge_thought(
    llm: LLM, left: Sequence[str], right: Sequence[str], spent: Counter[str]
) -> list[str]:
    """Ask K times for the merge of two short sorted lists, until a branch passes the checker."""
    prompt = f"merge {' '.join(left)} | {' '.join(right)}\n"
    for attempt in range(ATTEMPTS):
        params = SamplingParams(n=K, max_tokens=2 * BLOCK_DIGITS, seed=attempt)
        result = llm.search(prompt, "best_of_n", params=params, scorer=check_part)
        spent["thoughts"] += 1
        spent["tokens"] += result.usage.generated_tokens
        if result.solved and result.best is not None:
            return result.best.text.split()
    raise AssertionError("no branch passed the checker")


def merge_lists(
    llm: LLM, left: Sequence[str], right: Sequence[str], spent: Counter[str]
) -> list[str]:
    """Merge two sorted lists of equal length, a power of two."""
    if len(left) + len(right) <= BLOCK_DIGITS:
        return merge_thought(llm, left, right, spent)
    even = merge_lists(llm, left[0::2], right[0::2], spent)
    odd = merge_lists(llm, left[1::2], right[1::2], spent)
    merged = [even[0]]
    for pair in zip(odd, even[1:], strict=False):
        merged += sorted(pair)
    return [*merged, odd[-1]]


def main(llm: LLM) -> tuple[list[str], list[str]]:
    """Sort; prints the stages and returns the digits and the sorted list."""
    digits, spent = draw_digits(seed=0), Counter[str]()
    print("digits:", "".join(digits))
    lists = [
        sort_block(llm, digits[begin : begin + BLOCK_DIGITS], spent)
        for begin in range(0, NUM_DIGITS, BLOCK_DIGITS)
    ]
    while len(lists) > 1:
        print(f"{len(lists)} sorted lists:", " ".join("".join(one) for one in lists))
        pairs = zip(lists[::2], lists[1::2], strict=True)
        lists = [merge_lists(llm, left, right, spent) for left, right in pairs]
    print("sorted:", "".join(lists[0]))
    verdict = "right" if lists[0] == sorted(digits) else "wrong"
    print(f"{verdict}; {spent['thoughts']} thoughts of {K} branches, {spent['tokens']} tokens")
    return digits, lists[0]


if __name__ == "__main__":
    main(LLM("ramify-tiny"))
