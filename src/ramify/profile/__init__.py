"""Profiling: where time goes in a decode step, and in any model that generates."""

from ramify.profile.model import characterise
from ramify.profile.operators.formulas import register_formula

__all__ = ["characterise", "register_formula"]
