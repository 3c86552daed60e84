"""Pins: paths whose KV stays in the pool for a time, also when their tree is over.

A pin is a path of its own, so growing, rewinding, pruning or finishing the branch does not touch
it. The order in which slots are given up is: reservations, the prefix cache, idle paths of open
trees, and last, when a request would otherwise fail, pins: those that end first go first. So a pin
can delay others but never starve them; `Pin.state` tells its owner.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from enum import Enum

from ramify.cache import Cursor, TokenTree
from ramify.core.errors import InputError, expected_got


class PinState(Enum):
    """Whether a pin still holds, and if not, what ended it."""

    HELD = "held"
    EXPIRED = "expired"  # its time was over
    RELEASED = "released"  # by its owner, or with a tree that leaves no prefix cache
    YIELDED = "yielded"  # a request would have failed for want of its slots


class Pin:
    """A path that is held in the pool. Made by `NodeHandle.pin`.

    Attributes:
        request, node: whose path it is; the node as it was when it was pinned.
        end_s: when it ends by the engine's clock; infinite without a limit.
    """

    def __init__(self, pins: Pins, request: int, node: int, cursor: Cursor, end_s: float) -> None:
        self.request, self.node, self.end_s = request, node, end_s
        self._pins = pins
        self._cursor = cursor
        self._state = PinState.HELD

    @property
    def state(self) -> str:
        """held, expired, released or yielded (to a request that would have failed)."""
        self._pins.expire()
        return self._state.value

    @property
    def num_tokens(self) -> int:
        """Tokens of the path."""
        return self._cursor.length

    def release(self) -> None:
        """Let go before the time is over; no effect on a pin that has ended."""
        if self._state is PinState.HELD:
            self._pins._let_go(self, PinState.RELEASED)


class Pins:
    """All pins of an engine.

    Args:
        keep: whether paths of trees that are over become prefix cache.
        clock: seconds from any point in time on; pins end by it.
    """

    def __init__(
        self, cache: TokenTree, *, keep: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        self._cache = cache
        self._keep = keep
        self._held: list[Pin] = []

    def hold(self, request: int, node: int, cursor: Cursor, ttl_s: float | None) -> Pin:
        """Pin a second path over the cursor's tokens for `ttl_s` seconds; None: without an end.

        An earlier pin of the same node is replaced. Tokens that are not computed yet are protected
        once they are. Raises InputError for a time that is no finite number above 0.
        """
        is_number = isinstance(ttl_s, (int, float)) and not isinstance(ttl_s, bool)
        if ttl_s is not None and not (is_number and 0 < ttl_s < math.inf):
            raise InputError(expected_got("ttl", "seconds > 0, or None", repr(ttl_s)))
        path = self._cache.fork(cursor)
        self._cache.pin(path)
        self.release(request, node)
        end_s = math.inf if ttl_s is None else self.clock() + ttl_s
        self._held.append(Pin(self, request, node, path, end_s))
        return self._held[-1]

    def release(self, request: int, node: int) -> None:
        """Let go of a node's pin, if it has one."""
        for pin in [p for p in self._held if (p.request, p.node) == (request, node)]:
            self._let_go(pin, PinState.RELEASED)

    def expire(self) -> None:
        """Let go of the pins whose time is over."""
        if self._held:
            now_s = self.clock()
            for pin in [p for p in self._held if p.end_s <= now_s]:
                self._let_go(pin, PinState.EXPIRED)

    def yield_one(self) -> bool:
        """Let go of the pin that ends first; False when there is none."""
        pin = min(self._held, key=lambda p: p.end_s, default=None)
        if pin is not None:
            self._let_go(pin, PinState.YIELDED)
        return pin is not None

    def leave(self, request: int) -> None:
        """A request is over: what its pins hold is prefix cache from now on, or goes."""
        for pin in [p for p in self._held if p.request == request]:
            if self._keep:
                self._cache.close(pin._cursor, keep=True)
            else:
                self._let_go(pin, PinState.RELEASED)

    def _let_go(self, pin: Pin, state: PinState) -> None:
        pin._state = state
        self._held.remove(pin)
        self._cache.unpin(pin._cursor)
        if pin._cursor.is_open:  # its tree goes on, and with it the paths that are in use
            self._cache.close(pin._cursor, keep=False)
