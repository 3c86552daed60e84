"""From a forest to the work list of one step: `build_plan`, `choose_method`, `explain`."""

from ramify.attention.plan.build import METHODS, build_plan, choose_method
from ramify.attention.plan.explain import PlanReport, explain
from ramify.attention.plan.heads import HeadShape
from ramify.attention.plan.plan import AttentionPlan

__all__ = [
    "METHODS",
    "AttentionPlan",
    "HeadShape",
    "PlanReport",
    "build_plan",
    "choose_method",
    "explain",
]
