"""What a run of `ramify profile suite` leaves behind, to JSON and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ramify.bench.env import Environment
from ramify.core.errors import InputError, expected_got
from ramify.profile.suite import SuiteRow


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What a run of the suite leaves; `failed` names what is missing, and why."""

    hardware: str
    rows: tuple[SuiteRow, ...]
    failed: dict[str, str]
    environment: Environment


def save_suite(result: SuiteResult, path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load_suite(paths: Sequence[Path]) -> SuiteResult:
    """Read results back, as one; later rows replace earlier ones of the same name.

    Raises InputError for a file that holds none.
    """
    results = [_load(path) for path in paths]
    rows = {row.name: row for result in results for row in result.rows}
    failed = {name: why for result in results for name, why in result.failed.items()}
    return SuiteResult(
        hardware=results[0].hardware,
        rows=tuple(rows.values()),
        failed=failed,
        environment=results[0].environment,
    )


def _load(path: Path) -> SuiteResult:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SuiteResult)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(expected_got(str(path), "rows of a suite as JSON", error)) from error
