"""Random mixed load for minutes or hours: nothing may leak, break or change a token."""

from ramify.bench.soak.report import SoakReport
from ramify.bench.soak.run import Soak, soak

__all__ = ["Soak", "SoakReport", "soak"]
