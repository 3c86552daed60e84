"""Profiling: where time goes in a decode step, and in any model that generates."""

from ramify.profile.measure import MeasureSettings
from ramify.profile.model import characterise
from ramify.profile.operators.formulas import register_formula

__all__ = ["MeasureSettings", "characterise", "register_formula"]
