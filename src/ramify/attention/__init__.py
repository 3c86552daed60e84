"""Tree attention: shared KV is read once for every row that sees it."""

from ramify.attention.api import TreeAttention
from ramify.attention.backends import BACKENDS
from ramify.attention.plan import (
    METHODS,
    AttentionPlan,
    HeadShape,
    PlanReport,
    build_plan,
    choose_method,
    explain,
)

__all__ = [
    "BACKENDS",
    "METHODS",
    "AttentionPlan",
    "HeadShape",
    "PlanReport",
    "TreeAttention",
    "build_plan",
    "choose_method",
    "explain",
]
