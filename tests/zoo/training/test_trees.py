"""Training trees read as texts: what each branch says, what it is taught, what it can see."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.zoo.tasks import TASKS, Problem, get_task
from ramify.zoo.tasks.puzzle import parse_prompt
from ramify.zoo.training.document_data import draw_documents
from ramify.zoo.training.list_data import draw_lists
from ramify.zoo.training.packing import DataConfig, make_batch
from ramify.zoo.training.puzzle_data import PuzzleData
from ramify.zoo.training.trees import NO_LABEL, Trees
from ramify.zoo.training.vocab import BOS, EOS, PAD, build_tokenizer

TOKENIZER = build_tokenizer()
PUZZLES = PuzzleData(max_number=7)


def reaches(numbers: list[int], target: int) -> bool:
    """Whether the target can be reached, by plain recursion."""
    if len(numbers) == 1:
        return numbers[0] == target
    for i in range(len(numbers)):
        for j in range(len(numbers)):
            a, b = numbers[i], numbers[j]
            rest = [x for k, x in enumerate(numbers) if k not in (i, j)]
            values = [a + b, a - b, a * b] + ([a // b] if b and a % b == 0 else [])
            if i != j and any(0 <= v <= 999 and reaches([*rest, v], target) for v in values):
                return True
    return False


def contexts(trees: Trees, tree: int) -> list[tuple[str, str, list[int]]]:
    """For each learned token: the text it sees, the text of its label, the positions it sees."""
    begin, end = int(trees.bounds[tree]), int(trees.bounds[tree + 1])
    tokens, labels = trees.tokens[begin:end], trees.labels[begin:end]
    ends, positions = trees.ends[begin:end], trees.positions[begin:end]
    found = []
    for i in np.flatnonzero(labels != NO_LABEL).tolist():
        seen = [j for j in range(i + 1) if ends[j] > i]
        text = TOKENIZER.decode(tokens[seen].tolist(), skip_special_tokens=True)
        label = TOKENIZER.decode([int(labels[i])], skip_special_tokens=False)
        found.append((text, label, positions[seen].tolist()))
    return found


def all_trees() -> dict[str, Trees]:
    rng = np.random.default_rng(11)
    return {
        "puzzle": PUZZLES.draw(rng, 6),
        "unsolvable": PUZZLES.draw_unsolvable(rng, 6),
        "lists": draw_lists(rng, 12),
        "documents": draw_documents(rng, 600, 4096, short=True),
    }


TREES = all_trees()


@pytest.mark.parametrize("name", TREES)
def test_what_a_token_sees_is_one_path_with_its_own_positions(name: str) -> None:
    trees = TREES[name]
    for tree in range(len(trees.bounds) - 1):
        for _, _, positions in contexts(trees, tree):
            assert positions == list(range(len(positions)))


@pytest.mark.parametrize("name", TREES)
def test_every_path_is_the_encoding_of_its_text(name: str) -> None:
    trees = TREES[name]
    for tree in range(len(trees.bounds) - 1):
        begin, end = int(trees.bounds[tree]), int(trees.bounds[tree + 1])
        tokens, ends = trees.tokens[begin:end], trees.ends[begin:end]
        for i in range(end - begin):
            path = [int(tokens[j]) for j in range(i + 1) if ends[j] > i]
            path = path[1:] if path[0] == BOS else path
            text = TOKENIZER.decode(path)
            assert TOKENIZER.encode(text, add_special_tokens=False).ids == path


def test_judge_labels_are_true() -> None:
    asked = {"puzzle": 0, "unsolvable": 0}
    for name in asked:
        trees = TREES[name]
        for tree in range(len(trees.bounds) - 1):
            for text, label, _ in contexts(trees, tree):
                if not text.endswith("\n?"):
                    continue
                prompt, *lines, _ = text.split("\n")
                numbers, target = parse_prompt(prompt + "\n")
                left = [int(x) for x in lines[-1].split("left")[1].split()] if lines else numbers
                assert label == (" yes" if reaches(left, target) else " no"), text
                asked[name] += 1
    assert asked == {"puzzle": 6 * 12, "unsolvable": 6}


def test_learned_puzzle_lines_are_legal_and_solutions_end() -> None:
    trees = TREES["puzzle"]
    ended = 0
    for tree in range(len(trees.bounds) - 1):
        for text, label, _ in contexts(trees, tree):
            if label not in ("\n", "<eos>"):
                continue
            prompt, rest = text.split("\n", 1)
            problem = Problem(task="puzzle", prompt=prompt + "\n")
            body = rest if label == "<eos>" else rest + "\n"
            verdict = TASKS["puzzle"].check_partial(problem, body)
            assert verdict.legal, text
            assert verdict.solved == (label == "<eos>" or (rest.count("\n") == 2))
            ended += label == "<eos>"
    assert ended == 6


@pytest.mark.parametrize("name", ["lists", "documents"])
def test_learned_answers_are_right(name: str) -> None:
    trees = TREES[name]
    answers = 0
    for tree in range(len(trees.bounds) - 1):
        learned = contexts(trees, tree)
        for text, label, _ in learned:
            if label != "<eos>":
                continue
            cut = text.rindex(" is") + 3 if name == "documents" else text.index("\n") + 1
            problem = Problem(task=text.split()[0], prompt=text[:cut])
            assert get_task(problem.task).check(problem, text[cut:]).solved, text
            answers += 1
    assert answers >= 12


def test_batches_depend_on_seed_and_index_alone() -> None:
    config = DataConfig(rows=2, row_length=512, max_number=7, seed=3)
    first, again, other = (make_batch(config, PUZZLES, i) for i in (5, 5, 6))
    assert (first.tokens == again.tokens).all()
    assert (first.ends == again.ends).all()
    assert (first.tokens != other.tokens).any()


def test_rows_are_filled_and_padding_teaches_nothing() -> None:
    # small numbers make shorter trees than the packing counts on, so rows here are less full
    config = DataConfig(rows=4, row_length=1024, max_number=7)
    batch = make_batch(config, PUZZLES, 0)
    assert 0.6 * batch.tokens.size < batch.num_tokens < batch.tokens.size
    padding = batch.tokens == PAD
    assert (batch.labels[padding] == NO_LABEL).all()
    index = np.broadcast_to(np.arange(1024), batch.ends.shape)
    assert (batch.ends > index).all()
    assert (batch.ends <= 1024).all()
    assert set(np.unique(batch.kinds[batch.labels != NO_LABEL])) == {0, 1, 2, 3}
    assert (batch.labels == EOS).any()
