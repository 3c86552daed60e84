"""How long does a step of beam search take?  (`ramify bench beam`)

A step is (time for N tokens - time for 1) / (N - 1) of `LLM.beam_search` on a random prompt, the
prefix cache off and end-of-text ignored, after one warm-up run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify import LLM, BeamSearchParams
from ramify.bench.floor import step_floor
from ramify.bench.generation import Generation, copy_rate, release
from ramify.bench.step_rows import BeamRow
from ramify.bench.target import OURS, NotRun, Target
from ramify.bench.transformers_peer import TransformersPeer
from ramify.core.errors import InputError, expected_got
from ramify.profile.shape import random_prompt

Beams = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class BeamBench(Target):
    """A prompt and the widths it is searched with."""

    prompt_tokens: int
    beam_widths: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, numbers in (
            ("prompt_tokens", [self.prompt_tokens]),
            ("beam_width", self.beam_widths),
        ):
            if min(numbers, default=0) < 1:
                raise InputError(expected_got(name, "at least 1", list(numbers)))


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A timing, or why there is none, and the beams it ended with, best first."""

    timed: Generation | str
    beams: Beams


def bench_beams(bench: BeamBench) -> list[BeamRow]:
    """Measure every width, then with every peer; rows of ours come first.

    Raises ConfigError when the model cannot be loaded, InputError for a prompt that is too long.
    """
    bench.check_context(bench.prompt_tokens)
    rate = copy_rate(bench.device)
    peers = _run_transformers(bench) if bench.peers else []
    release(bench.device)
    llm = LLM(**bench.settings)
    bench.progress(str(llm.startup))
    # what all beams share, at the least
    floor_ms = step_floor(llm, bench.prompt_tokens, rate).ms
    ours = [_run(bench, llm, width) for width in bench.beam_widths]

    def row(run: _Run, width: int, provider: str, are_equal: bool | None) -> BeamRow:
        fields = bench.row_fields(
            run.timed, prompt_tokens=bench.prompt_tokens, num_rows=width, floor_ms=floor_ms
        )
        made = BeamRow(
            **fields,
            provider=provider,
            dtype=llm.config.dtype,
            beam_width=width,
            are_beams_equal=are_equal,
        )
        bench.done(made)
        return made

    has_our_weights = bench.settings["load_format"] != "dummy"
    rows = [row(run, w, OURS, None) for run, w in zip(ours, bench.beam_widths, strict=True)]
    for peer, own, width in zip(peers, ours, bench.beam_widths, strict=False):
        ran = isinstance(peer.timed, Generation) and isinstance(own.timed, Generation)
        are_equal = peer.beams == own.beams if ran and has_our_weights else None
        rows.append(row(peer, width, TransformersPeer.name, are_equal))
    return rows


def _run(bench: BeamBench, llm: LLM, width: int) -> _Run:
    vocab_size = llm.engine.live.codec.vocab_size
    prompt = random_prompt(bench.prompt_tokens, vocab_size, bench.seed)
    beams: Beams = []

    def generate(new_tokens: int) -> None:
        params = BeamSearchParams(beam_width=width, max_tokens=new_tokens, ignore_eos=True)
        (output,) = llm.beam_search(prompt, params)
        if output.error is not None:
            raise NotRun(output.error)
        beams[:] = [beam.token_ids for beam in output.outputs]

    timed = bench.time(generate)
    bench.report(OURS, f"{width} beams", timed)
    return _Run(timed=timed, beams=beams)


def _run_transformers(bench: BeamBench) -> list[_Run]:
    """The same searches by transformers, where memory allows."""
    peer, runs = TransformersPeer(bench.settings), []
    prompt = random_prompt(bench.prompt_tokens, peer.vocab_size, bench.seed)
    for width in bench.beam_widths:
        beams: Beams = []

        def generate(new_tokens: int, width: int = width, beams: Beams = beams) -> None:
            beams[:] = peer.beams(prompt, width, new_tokens)

        timed = peer.time(
            generate,
            num_rows=width,
            prompt_tokens=bench.prompt_tokens,
            new_tokens=bench.new_tokens,
            repeats=bench.repeats,
        )
        bench.report(peer.name, f"{width} beams", timed)
        runs.append(_Run(timed=timed, beams=beams))
    return runs
