"""Policies: which tasks run in a step. Pure functions from a view to a decision."""

from collections.abc import Callable

from ramify.core.errors import InputError, expected_got
from ramify.scheduling.fcfs import FcfsPolicy
from ramify.scheduling.policy import Decision, KvView, Policy, TaskView, View, Work
from ramify.scheduling.prefill_first import PrefillFirstPolicy

POLICIES: dict[str, Callable[..., Policy]] = {
    "fcfs": FcfsPolicy,
    "prefill_first": PrefillFirstPolicy,
}


def make_policy(name: str, *, max_rows: int) -> Policy:
    """Build a policy by name. Raises InputError listing the names that exist."""
    if name not in POLICIES:
        raise InputError(expected_got("policy", f"one of {', '.join(POLICIES)}", repr(name)))
    return POLICIES[name](max_rows=max_rows)


__all__ = [
    "POLICIES",
    "Decision",
    "FcfsPolicy",
    "KvView",
    "Policy",
    "PrefillFirstPolicy",
    "TaskView",
    "View",
    "Work",
    "make_policy",
]
