"""Recorded speculative decoding, in the format of DeFT's workloads (Yao et al., ICLR 2025).

A file is one JSON object `{Tree_Structure, Records: [{Accept_length: [...]}, ...], ...}`. Every
step verifies a draft of the same structure: paths of child ranks below the last accepted token, as
Medusa writes them (Cai et al. 2024), so `[[0], [0, 0], [1]]` is a tree of four tokens. A step
accepts `Accept_length` of them. Prompts come as text; what reads them counts tokens as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, cycle
from pathlib import Path

import msgspec

from ramify.core.errors import InputError, expected_got


class _Record(msgspec.Struct, kw_only=True):
    Accept_length: list[int]


class _File(msgspec.Struct, kw_only=True):
    Tree_Structure: list[list[int]]
    Records: list[_Record]


@dataclass(frozen=True, kw_only=True)
class RecordedDrafts:
    """A draft's structure and, per record, the tokens accepted step after step.

    `parent[i]` is the parent of drafted token i, which comes before i; -1 for token 0, the one that
    was accepted last. Tokens are numbered level by level.
    """

    parent: tuple[int, ...]
    accepted: tuple[tuple[int, ...], ...]

    def contexts(self, record: int, prompt: int, generate: int) -> list[int]:
        """Tokens before the draft, step after step, until `generate` tokens are accepted.

        A record that is shorter is repeated from its start. Raises InputError for a record that
        does not exist.
        """
        if not 0 <= record < len(self.accepted):
            raise InputError(expected_got("record", f"below {len(self.accepted)}", record))
        steps, end = [], prompt + generate
        for context in accumulate(cycle(self.accepted[record]), initial=prompt):
            if context >= end:
                break
            steps.append(context)
        return steps


def load_recorded_drafts(path: str | Path) -> RecordedDrafts:
    """Read a file. Raises InputError, naming it, when it cannot be read or is not of the format:
    a path without its parent or met twice, an empty record, a step that accepts nothing.
    """
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=_File)
    except OSError as error:
        raise InputError(expected_got(str(path), "a readable file", error.strerror)) from error
    except msgspec.MsgspecError as error:
        raise InputError(expected_got(str(path), "recorded drafts", error)) from error
    for index, record in enumerate(found.Records):
        if min(record.Accept_length, default=0) < 1:
            wanted = f"record {index} to accept at least 1 token a step"
            raise InputError(expected_got(str(path), wanted, record.Accept_length[:8]))
    return RecordedDrafts(
        parent=_parents(found.Tree_Structure, str(path)),
        accepted=tuple(tuple(record.Accept_length) for record in found.Records),
    )


def _parents(paths: list[list[int]], name: str) -> tuple[int, ...]:
    """Parents of the drafted tokens, token 0 being the root of all paths."""
    paths = sorted(paths, key=len)
    index = {tuple(path): place for place, path in enumerate(paths, start=1)}
    if len(index) != len(paths):
        raise InputError(expected_got(name, "every path once", f"{len(paths)} paths, some twice"))
    index[()] = 0
    for path in paths:
        if not path or tuple(path[:-1]) not in index:
            raise InputError(expected_got(name, f"the parent of path {path}", "no such path"))
    return (-1, *(index[tuple(path[:-1])] for path in paths))
