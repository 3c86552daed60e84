"""Documents as training trees: one text, many questions that cannot see one another.

With the questions in a row a model learns to answer by elimination and stalls; as branches at the
same positions each must be found in the text.
"""

from __future__ import annotations

import numpy as np

from ramify.zoo.tasks.documents import Document, draw_document, question_of
from ramify.zoo.training.text import Writer
from ramify.zoo.training.trees import DOCUMENTS, Trees

MAX_QUESTIONS = 48
# half-open ranges of prompt lengths, and how many of the documents fall into each
LENGTHS = (((60, 400), 0.62), ((400, 1200), 0.23), ((1200, 3300), 0.15))


def draw_documents(
    rng: np.random.Generator, num_tokens: int, max_length: int, *, short: bool
) -> Trees:
    """Documents until about num_tokens tokens are reached; no tree exceeds max_length.

    `short` keeps to the shortest range, in which looking things up is learned first.
    """
    writer = Writer(DOCUMENTS)
    shares = np.array([share for _, share in LENGTHS]) * ([1, 0, 0] if short else [1, 1, 1])
    while writer.num_tokens < num_tokens:
        low, high = LENGTHS[int(rng.choice(len(LENGTHS), p=shares / shares.sum()))][0]
        length = int(rng.integers(low, high))
        # the questions of a short document are as many as its facts, about as long as its text
        if length * 1.1 + min(length, MAX_QUESTIONS * 10) <= max_length:
            _write(writer, rng, draw_document(rng, length))
    return writer.build()


def _write(writer: Writer, rng: np.random.Generator, document: Document) -> None:
    """One tree: the text, then up to MAX_QUESTIONS questions, half of them two hops."""
    writer.start_tree(document.text(), with_bos=rng.random() > 0.1)
    direct = list(document.values)
    referred = list(document.references)
    half = MAX_QUESTIONS // 2
    for keys in (referred, direct):
        for i in rng.permutation(len(keys))[:half].tolist():
            key = keys[i]
            writer.answer(question_of(key), f" {document.answer(key)}\n")
