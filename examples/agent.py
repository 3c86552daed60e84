"""An agent with handles: it steps, takes steps back, tries others from a token on, and waits.

    python examples/agent.py [DIRECTORY]

The agent solves a number puzzle line by line. Its tools are a checker of the rules and the model
itself, asked whether the target can still be reached. A line that fails is rewound to its first
number and tried again from there; beside a line that works, another is tried that begins with the
same number. Before a slow tool the path is pinned, so that the conversation goes on afterwards
without computing any of it again. The tree of all this is written into DIRECTORY (default: here)
as agent.json and agent.html.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from ramify import LLM, NodeHandle, SamplingParams, save_tree
from ramify.zoo.tasks import JUDGE_SUFFIX, NO, YES, Problem, get_task
from ramify.zoo.tasks.puzzle import prompt_of

LINE = SamplingParams(temperature=1.5, max_tokens=24, stop="\n", include_stop_str_in_output=True)
MOST_TRIES = 40
PIN_S = 60.0


@dataclass(kw_only=True)
class Report:
    """What the agent did and what it cost."""

    answer: str = ""
    solved: bool = False
    rewinds: int = 0
    forks: int = 0
    resumed_cached_tokens: int = 0
    resumed_prompt_tokens: int = 0


class Agent:
    """One puzzle and the branch that the agent stands on."""

    def __init__(self, llm: LLM, problem: Problem) -> None:
        self.llm = llm
        self.problem = problem
        self.report = Report()
        self.root = llm.tree(problem.prompt, seed=0)
        self.branch = self.root

    def solve(self) -> None:
        """Step until the checker says solved, or the tries are used up."""
        for _ in range(MOST_TRIES):
            line, hope = self.propose(self.branch)
            if hope < 0.5:
                line.rewind(to=behind_first_number(line))
                self.report.rewinds += 1
                begun = line
                line, hope = self.propose(begun)
                if hope < 0.5:
                    begun.prune()
                    continue
            elif hope < 1.0:
                line = self.best_variant(line, hope)
            self.branch = line
            if self.is_solved(line):
                self.report.solved = True
                return

    def propose(self, branch: NodeHandle) -> tuple[NodeHandle, float]:
        """Write a line, or the rest of one, and say how much hope there is with it."""
        (line,) = branch.expand(1, LINE)
        hope = self.hope(line)
        line.mark(hope)
        print(f"{hope:5.2f}  {line.completion.splitlines()[-1]}")
        return line, hope

    def hope(self, line: NodeHandle) -> float:
        """The checker's word if it has one, else the model's own probability of success."""
        verdict = get_task("puzzle").check_partial(self.problem, line.completion)
        if not verdict.legal:
            return 0.0
        if self.is_solved(line):
            return 1.0
        yes, no = line.ask(JUDGE_SUFFIX, [YES, NO])
        return math.exp(yes) / (math.exp(yes) + math.exp(no))

    def best_variant(self, line: NodeHandle, hope: float) -> NodeHandle:
        """Fork behind the line's first number and try another way on from there."""
        other, other_hope = self.propose(line.fork(at=behind_first_number(line)))
        self.report.forks += 1
        return other if other_hope > hope else line

    def is_solved(self, line: NodeHandle) -> bool:
        """Whether the path is a right derivation."""
        return get_task("puzzle").check(self.problem, line.completion).solved

    def hand_over(self, directory: Path) -> None:
        """End the tree as if a slow tool ran now, and go on later from what was pinned."""
        self.report.answer = self.branch.completion
        pin = self.branch.pin(ttl=PIN_S)
        path = self.branch.path_token_ids
        self.root.finish([self.branch])
        tree = self.root.export()
        for name in ("agent.json", "agent.html"):
            save_tree(tree, directory / name)
        later = self.llm.tree(path)
        later.expand(1, SamplingParams(max_tokens=1))
        self.report.resumed_prompt_tokens = len(path)
        self.report.resumed_cached_tokens = later.usage.cached_tokens
        later.finish()
        pin.release()


def behind_first_number(line: NodeHandle) -> int:
    """The position behind a line's first number, whose digits are a token each."""
    begin = len(line.path_token_ids) - len(line.token_ids)
    return begin + len(line.text.split()[0])


def main(llm: LLM, directory: Path) -> Report:
    """Solve a puzzle; prints the steps, writes the tree, returns what was done."""
    agent = Agent(llm, Problem(task="puzzle", prompt=prompt_of((2, 7, 8, 9), 24)))
    agent.solve()
    agent.hand_over(directory)
    report = agent.report
    print("solved:" if report.solved else "not solved:", report.answer.strip().replace("\n", "; "))
    print(f"{report.rewinds} lines rewound, {report.forks} tried from a token on")
    cached, length = report.resumed_cached_tokens, report.resumed_prompt_tokens
    print(f"resumed with {cached} of {length} tokens cached")
    return report


if __name__ == "__main__":
    main(LLM("ramify-tiny"), Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
