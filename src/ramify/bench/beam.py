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

    provider: str
    width: int
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
    ours = {width: _run(bench, llm, width) for width in bench.beam_widths}
    floor = step_floor(llm, bench.prompt_tokens, rate)  # what all beams share, at the least
    rows = []
    for run in (*ours.values(), *peers):
        fields = bench.row_fields(
            run.timed, prompt_tokens=bench.prompt_tokens, num_rows=run.width, floor_ms=floor.ms
        )
        row = BeamRow(
            **fields,
            provider=run.provider,
            dtype=llm.config.dtype,
            beam_width=run.width,
            are_beams_equal=_are_equal(bench, run, ours[run.width]),
        )
        bench.done(row)
        rows.append(row)
    return rows


def _are_equal(bench: BeamBench, run: _Run, own: _Run) -> bool | None:
    """Whether a peer found our beams; None where the question makes no sense."""
    has_our_weights = bench.settings["load_format"] != "dummy"
    if run is own or not has_our_weights or not (run.beams and own.beams):
        return None
    return run.beams == own.beams


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
    return _Run(provider=OURS, width=width, timed=timed, beams=beams)


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
        runs.append(_Run(provider=peer.name, width=width, timed=timed, beams=beams))
    return runs
