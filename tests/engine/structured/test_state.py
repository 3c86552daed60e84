"""States by tokens: what is read, where a text may end, and that forks are apart."""

from __future__ import annotations

from ramify import StructuredOutput
from ramify.engine.codec import Codec
from ramify.engine.structured.compile import Grammars


def test_a_state_reads_up_to_the_first_token_it_refuses(codec: Codec, grammars: Grammars) -> None:
    state = grammars.start(StructuredOutput(regex="ab+c?"))
    a, b, c, x = (codec.encode(letter)[0] for letter in "abcx")
    assert not state.is_accepting and state.advance((x,)) == 0
    assert state.advance((a, b, x, b)) == 2
    assert state.is_accepting and not state.is_over and not state.error
    fork = state.fork()
    assert fork.advance((b, b, c)) == 3 and fork.is_over
    assert fork.advance((b,)) == 0 and fork.is_accepting
    assert not state.is_over and state.advance((b,)) == 1
    assert state.reads(c) and not state.reads(a)
    assert state.after(c) is None and state.after(a) is None
    after = state.after(b)
    assert after is not None and after.is_accepting and not after.is_over


def test_tokens_without_text_are_refused(codec: Codec, grammars: Grammars) -> None:
    """Special tokens of the model, and the one that stands for the end with the parser."""
    state = grammars.start(StructuredOutput(regex="(?s:.)*"))
    for token in (0, 1, 2, state.end_token):
        assert state.advance((token,)) == 0 and not state.reads(token)
    (word,) = codec.encode("3")
    assert state.advance((word, state.end_token, word)) == 1
    assert state.advance((word, 2, word)) == 1 and state.is_accepting
