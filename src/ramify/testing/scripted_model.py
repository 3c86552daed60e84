"""A scripted model: a function from the tokens of a path to what may follow them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import TokenLogprob
from ramify.core.seeds import gumbel_noise
from ramify.search.controller import Tokens

NextLogprobs = Callable[[tuple[int, ...]], Mapping[int, float]]
"""Token ids of a path, the prompt included, to natural log-probabilities of the next token."""


@dataclass(frozen=True, kw_only=True)
class ScriptedModel:
    """A deterministic model over a small vocabulary.

    A token's text is its entry in `vocab`; text is encoded longest entry first. A next token that
    the script leaves out is impossible. Sampling knows temperature alone.
    """

    next_logprobs: NextLogprobs
    vocab: Sequence[str]
    eos_token_ids: Sequence[int] = ()
    max_context: int | None = None
    reward: Callable[[tuple[int, ...]], float] | None = None  # of a path, the prompt included

    def encode(self, tokens: Tokens) -> tuple[int, ...]:
        """Token ids of a text; ids pass through."""
        if not isinstance(tokens, str):
            return tuple(tokens)
        ids: list[int] = []
        at = 0
        while at < len(tokens):
            fits = [i for i, t in enumerate(self.vocab) if t and tokens.startswith(t, at)]
            if not fits:
                raise InputError(expected_got("text", "entries of the vocabulary", tokens[at:]))
            ids.append(max(fits, key=lambda i: len(self.vocab[i])))
            at += len(self.vocab[ids[-1]])
        return tuple(ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids; end-of-text shows as nothing."""
        return "".join("" if t in self.eos_token_ids else self.vocab[t] for t in token_ids)

    def top(self, path: tuple[int, ...], count: int) -> tuple[tuple[int, float], ...]:
        """The most probable next tokens; of equal ones the lower id first."""
        ranked = sorted(self.next_logprobs(path).items(), key=lambda item: (-item[1], item[0]))
        return tuple(ranked[:count])

    def pick(self, path: tuple[int, ...], temperature: float, seed: int) -> int:
        """The next token: the most probable one, or by Gumbel noise of (seed, position)."""
        ranked = self.top(path, len(self.vocab))
        if temperature == 0.0:
            return ranked[0][0]
        noise = gumbel_noise([seed], [len(path)], len(self.vocab))[0]
        return max(ranked, key=lambda item: item[1] / temperature + float(noise[item[0]]))[0]

    def token_logprob(self, path: tuple[int, ...], token: int, count: int) -> TokenLogprob:
        """The log-probability of `token` after `path`, its rank, and `count` alternatives."""
        ranked = self.top(path, len(self.vocab))
        rank = next((i for i, (t, _) in enumerate(ranked) if t == token), len(ranked))
        logprob = ranked[rank][1] if rank < len(ranked) else -math.inf
        return TokenLogprob(
            token_id=token, logprob=logprob, rank=rank + 1, top=tuple(ranked[:count])
        )


def table_model(
    table: Mapping[str, Mapping[str, float]],
    *,
    prompt: str = "P",
    letters: str = "abcdefgh\n?yn",
    max_context: int | None = None,
) -> ScriptedModel:
    """A model by table: the text after `prompt` to the probabilities of the next letter.

    Every letter is a token, the prompt is token 1, and token 0 is the end of text, written "" in
    the table; after a text that the table leaves out only the end is possible.
    """
    vocab = ["<eos>", prompt, *letters]

    def next_logprobs(path: tuple[int, ...]) -> dict[int, float]:
        text = "".join(vocab[token] for token in path).removeprefix(prompt)
        chances = table.get(text, {"": 1.0})
        return {vocab.index(t) if t else 0: math.log(p) for t, p in chances.items()}

    return ScriptedModel(
        next_logprobs=next_logprobs, vocab=vocab, eos_token_ids=(0,), max_context=max_context
    )


def lines_model(
    letters: str = "abc", depth: int = 3, *, max_context: int | None = None
) -> ScriptedModel:
    """A model of `depth` lines of one letter each, all equally probable, and then the end."""
    table: dict[str, dict[str, float]] = {}
    begun = [""]
    for _ in range(depth):
        for text in begun:
            table[text] = dict.fromkeys(letters, 1 / len(letters))
            table |= {text + letter: {"\n": 1.0} for letter in letters}
        begun = [f"{text}{letter}\n" for text in begun for letter in letters]
    return table_model(table, max_context=max_context)
