"""How models are measured, out of the flags that commands under `ramify profile` share."""

from __future__ import annotations

from ramify.cli.profile_options import MeasureFlags, RunMode
from ramify.profile.measure import MeasureSettings
from ramify.profile.roofline import ATTENTIONS


def measure_settings(
    options: MeasureFlags, runs: tuple[RunMode, ...] = ("eager",)
) -> MeasureSettings | None:
    """The settings, or None where nothing is measured. Raises InputError for what cannot be.

    Args:
        runs: modes where the flags name none.
    """
    if options.measure == "no":
        return None
    return MeasureSettings(
        device=options.device,
        attentions=ATTENTIONS if options.measure == "both" else (options.measure,),
        runs=options.run or runs,
        repeats=options.repeats,
        trace=options.trace,
        trace_megabytes=options.trace_megabytes,
    )
