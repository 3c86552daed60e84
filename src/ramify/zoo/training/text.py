"""Trees written from text: a prompt and branches of (question, learned answer)."""

from __future__ import annotations

import re

import numpy as np

from ramify.zoo.training.trees import NO_LABEL, Trees
from ramify.zoo.training.vocab import BOS, EOS, SPLIT, token_ids

_IDS = token_ids()
_PIECE = re.compile(SPLIT, re.ASCII)


def encode(text: str) -> list[int]:
    """The tokenizer's ids of an ASCII task text whose words all have their own token."""
    return [_IDS[piece] for piece in _PIECE.findall(text)]


class Writer:
    """Appends trees of two levels: a prompt, and answers below it."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._tokens: list[int] = []
        self._labels: list[int] = []
        self._positions: list[int] = []
        self._ends: list[int] = []
        self._bounds = [0]
        self._prompt: list[int] = []

    @property
    def num_tokens(self) -> int:
        """Tokens written so far."""
        return len(self._tokens)

    def start_tree(self, prompt: str, *, with_bos: bool) -> None:
        """Begin a tree; its prompt is never learned, except that the answer may follow at once."""
        self._close()
        self._prompt = [BOS] * with_bos + encode(prompt)
        self._extend(self._prompt, [NO_LABEL] * len(self._prompt), begin_position=0)

    def answer(self, question: str, answer: str) -> None:
        """Add a branch; with an empty question the answer follows the prompt's last token."""
        asked, learned = encode(question), encode(answer)
        if not asked:
            self._labels[-1] = learned[0]
            labels = [*learned[1:], EOS]
        else:
            labels = [NO_LABEL] * (len(asked) - 1) + [*learned, EOS]
        self._extend(asked + learned, labels, begin_position=len(self._prompt))
        branch = len(labels)
        own_end = len(self._tokens) - self._bounds[-1]
        self._ends[-branch:] = [own_end] * branch

    def build(self) -> Trees:
        """Everything written."""
        self._close()
        parts = (self._tokens, self._labels, self._positions, self._ends)
        tokens, labels, positions, ends = (np.array(part, dtype=np.int64) for part in parts)
        return Trees(
            tokens=tokens,
            labels=labels,
            positions=positions,
            ends=ends,
            kinds=np.full(len(tokens), self._kind),
            bounds=np.array(self._bounds),
        )

    def _extend(self, tokens: list[int], labels: list[int], *, begin_position: int) -> None:
        self._tokens += tokens
        self._labels += labels
        self._positions += range(begin_position, begin_position + len(tokens))
        self._ends += [0] * len(tokens)

    def _close(self) -> None:
        """The prompt's subtree ends with its tree."""
        begin, end = self._bounds[-1], len(self._tokens)
        if end > begin:
            self._ends[begin : begin + len(self._prompt)] = [end - begin] * len(self._prompt)
            self._bounds.append(end)
