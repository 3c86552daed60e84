"""Documents: passages that state keyed facts, some by reference to another, then a question.

    documents
    passage 1 : color of otter is red . rain came and nobody spoke .
    passage 2 : color of lynx is that of otter . age of crow is 47 .
    ask color of lynx is                                              ->  " red"

A direct fact takes one hop to find; a reference takes two. The checker reads the facts from the
prompt, so it needs nothing but the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from ramify.zoo.tasks.base import Problem, Verdict, illegal, solved, unfinished
from ramify.zoo.tasks.split import is_heldout
from ramify.zoo.tasks.words import ATTRIBUTES, FILLER, NUMBERS, THINGS, VALUES

Sentence = list[str]
Key = tuple[str, str]  # (attribute, thing)

HEADER = "documents"
TOKENS_PER_SENTENCE = 7
MAX_FACTS = 300

_DIRECT = re.compile(r" (\w+) of (\w+) is (\w+) \.")
_REFERENCE = re.compile(r" (\w+) of (\w+) is that of (\w+) \.")
_QUESTION = re.compile(r"\nask (\w+) of (\w+) is\Z")


@dataclass(kw_only=True)
class Document:
    """The passages as sentences of words, and what they state."""

    passages: list[list[Sentence]]
    values: dict[Key, str] = field(default_factory=dict)
    references: dict[Key, str] = field(default_factory=dict)

    def answer(self, key: Key) -> str:
        """The value of a fact, followed through its reference if it has one."""
        return self.values[(key[0], self.references.get(key, key[1]))]

    def text(self) -> str:
        """The prompt up to the question."""
        lines = [
            f"passage {number} :" + "".join(f" {' '.join(words)} ." for words in sentences)
            for number, sentences in enumerate(self.passages, start=1)
        ]
        return "\n".join([HEADER, *lines]) + "\n"


def question_of(key: Key) -> str:
    """The line that asks for a fact; the answer follows on the same line."""
    return f"ask {key[0]} of {key[1]} is"


def draw_document(rng: np.random.Generator, num_tokens: int, heldout: bool = False) -> Document:
    """A document of about num_tokens tokens from the asked side of the split.

    The split looks at the opening fact: training never sees a document with a held-out one.
    """
    while True:
        key = (
            ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))],
            THINGS[int(rng.integers(len(THINGS)))],
        )
        value = _random_value(rng, key[0])
        if is_heldout_fact(key, value) == heldout:
            break
    while True:
        document = Document(passages=[[_direct(key, value)]], values={key: value})
        _fill(rng, document, max(6, num_tokens // TOKENS_PER_SENTENCE))
        if document.references:
            return document


class Documents:
    """The documents family."""

    name = "documents"
    max_tokens = 8

    def generate(self, rng: np.random.Generator, *, heldout: bool = False, **shape: int) -> Problem:
        """shape: `num_tokens` of the prompt (default 150 to 600, drawn), `hops` 1 or 2 (drawn)."""
        num_tokens = shape.get("num_tokens") or int(rng.integers(150, 600))
        hops = shape.get("hops") or int(rng.integers(1, 3))
        document = draw_document(rng, num_tokens, heldout)
        keys = list(document.references if hops == 2 else document.values)
        key = keys[int(rng.integers(len(keys)))]
        return Problem(
            task=self.name,
            prompt=document.text() + question_of(key),
            answer=f" {document.answer(key)}\n",
            meta={"hops": hops, "num_passages": len(document.passages)},
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right when the text is the value alone."""
        expected, got = _answer_in(problem.prompt), text.strip()
        if got == expected:
            return solved(f"answered {expected}")
        return illegal(f"expected {expected!r}, got {got!r}")

    def check_partial(self, problem: Problem, text: str) -> Verdict:
        """Until the line ends, the beginning of any value is legal, right or wrong."""
        if text.endswith("\n"):
            return self.check(problem, text)
        attribute = _question_in(problem.prompt)[0]
        if _begins_a_value(attribute, text.lstrip(" ")):
            return unfinished(0.0, "unfinished")
        return illegal(f"{text!r} begins no {attribute}")


def _fill(rng: np.random.Generator, document: Document, num_sentences: int) -> None:
    """Lay out sentences: filler, direct facts, and references into other passages."""
    sizes = [int(rng.integers(1, 6))]
    while sum(sizes) < num_sentences:
        sizes.append(int(rng.integers(2, 7)))
    fact_share = min(rng.uniform(0.3, 0.7), MAX_FACTS / num_sentences)
    (opening,) = document.values
    keys = [(attribute, thing) for attribute in ATTRIBUTES for thing in THINGS]
    keys.remove(opening)
    order = iter(rng.permutation(len(keys)).tolist())
    home: dict[str, list[tuple[int, Key]]] = {opening[0]: [(0, opening)]}
    later: list[tuple[int, int, Key]] = []
    for passage, size in enumerate(sizes):
        sentences = document.passages[0] if passage == 0 else []
        for kind in rng.random(size).tolist():
            if kind >= fact_share:
                sentences.append(_filler(rng))
                continue
            key = keys[next(order)]
            if kind >= fact_share * 0.6:
                later.append((passage, len(sentences), key))
                sentences.append([])
                continue
            document.values[key] = _random_value(rng, key[0])
            sentences.append(_direct(key, document.values[key]))
            home.setdefault(key[0], []).append((passage, key))
        if passage > 0:
            document.passages.append(sentences)
    for passage, place, key in later:
        others = [other for where, other in home.get(key[0], []) if where != passage]
        document.passages[passage][place] = _refer(rng, document, key, others)


def _random_value(rng: np.random.Generator, attribute: str) -> str:
    """A value that the attribute may have."""
    if attribute in NUMBERS:
        return str(int(rng.integers(*NUMBERS[attribute])))
    return VALUES[attribute][int(rng.integers(len(VALUES[attribute])))]


def _direct(key: Key, value: str) -> Sentence:
    """The sentence of a direct fact."""
    return [key[0], "of", key[1], "is", value]


def _refer(rng: np.random.Generator, document: Document, key: Key, others: list[Key]) -> Sentence:
    """A reference to one of the facts of other passages; filler when there is none."""
    if not others:
        return _filler(rng)
    target = others[int(rng.integers(len(others)))][1]
    document.references[key] = target
    return [key[0], "of", key[1], "is", "that", "of", target]


def _filler(rng: np.random.Generator) -> Sentence:
    """A sentence that states nothing."""
    return [FILLER[i] for i in rng.integers(0, len(FILLER), int(rng.integers(3, 8))).tolist()]


def is_heldout_fact(key: Key, value: str) -> bool:
    """Whether training must never see a document that opens with this fact."""
    attribute = ATTRIBUTES.index(key[0])
    number = int(value) if key[0] in NUMBERS else VALUES[key[0]].index(value)
    packed = (attribute * 64 + THINGS.index(key[1])) * 1000 + number
    return bool(is_heldout(np.array([packed], dtype=np.uint64))[0])


def _question_in(prompt: str) -> Key:
    """The fact that a prompt asks for; ValueError when it asks for none."""
    match = _QUESTION.search(prompt)
    if match is None:
        raise ValueError(f"prompt: expected 'ask ... of ... is' at the end, got {prompt[-40:]!r}")
    return match[1], match[2]


def _answer_in(prompt: str) -> str:
    """The right answer, read from the prompt's own facts."""
    attribute, thing = _question_in(prompt)
    references = {(m[1], m[2]): m[3] for m in _REFERENCE.finditer(prompt)}
    values = {(m[1], m[2]): m[3] for m in _DIRECT.finditer(prompt)}
    key = (attribute, references.get((attribute, thing), thing))
    if key not in values:
        raise ValueError(f"prompt: expected a fact about the {attribute} of {thing}, got none")
    return values[key]


def _begins_a_value(attribute: str, text: str) -> bool:
    """Whether some value of the attribute starts with the text."""
    if attribute in NUMBERS:
        return text == "" or (text.isascii() and text.isdigit() and len(text) <= 3)
    return any(value.startswith(text) for value in VALUES.get(attribute, []))
