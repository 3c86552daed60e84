"""Random lives of a token tree against a dictionary model.

The model knows every live path as a plain list of tokens, and what was kept. A simulated KV pool
maps each slot to the prefix whose token was computed into it, so a slot that is shared wrongly,
reused too early or read after it was freed shows up as a foreign prefix.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ramify.cache import Cursor, Node, TokenTree, build_forest
from ramify.core.errors import InputError, OutOfSlots

NUM_SLOTS = 40
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
SHORT = st.lists(st.integers(0, 2), min_size=1, max_size=4)

Prefix = tuple[int, ...]


def common(left: list[int] | Prefix, right: list[int] | Prefix) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def walk(tree: TokenTree) -> list[tuple[Node, list[int]]]:
    """Every node with the tokens of its whole path."""
    found: list[tuple[Node, list[int]]] = []
    stack = [(tree.root, [])] if tree.root.children else []
    while stack:
        node, above = stack.pop()
        for child in node.children:
            found.append((child, above + child.tokens))
            stack.append((child, above + child.tokens))
    return found


class TreeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree = TokenTree(NUM_SLOTS, reserve=4, reserve_cap=8)
        self.live: dict[Cursor, list[int]] = {}  # open paths
        self.held: dict[Cursor, list[int]] = {}  # closed but pinned
        self.kept: list[Prefix] = []  # what keep=True put into the prefix cache, ever
        self.memory: dict[int, Prefix] = {}

    def pick(self, data: st.DataObject, cursors: list[Cursor] | None = None) -> Cursor:
        return data.draw(st.sampled_from(cursors or list(self.live)))

    def computed(self, cursor: Cursor) -> Prefix:
        tokens = self.live[cursor] if cursor in self.live else self.held[cursor]
        return tuple(tokens[: len(tokens) - self.tree.pending(cursor)])

    @rule(tokens=TOKENS, reuse=st.booleans())
    def open(self, tokens: list[int], reuse: bool) -> None:
        nodes = walk(self.tree)
        computed = [path[: n.start + n.num_computed] for n, path in nodes if n.num_computed]
        known = [path for _, path in nodes]
        before = self.tree.num_free
        assert self.tree.in_flight_match(tokens, self.tree.coming(self.tree.cursors)) == max(
            (common(tokens, path) for path in known), default=0
        )
        best = max((common(tokens, path) for path in computed), default=0)
        assert self.tree.computed_match(tokens) == best
        (known_len, idle), available = self.tree.cached_match(tokens), self.tree.available
        assert known_len == best
        cursor = self.tree.open(tokens, reuse=reuse)
        assert cursor.matched == (best if reuse else 0)
        assert self.tree.pending(cursor) == len(tokens) - cursor.matched
        assert self.tree.num_free == before
        assert available - self.tree.available == (idle if reuse else 0)
        self.live[cursor] = tokens

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        cursor = self.pick(data)
        at = data.draw(st.none() | st.integers(0, cursor.length))
        twin = self.tree.fork(cursor, at)
        self.live[twin] = self.live[cursor][:at]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 4))
    def fork_all(self, data: st.DataObject, count: int) -> None:
        cursors = [self.pick(data) for _ in range(count)]
        clock = self.tree.clock
        for twin, cursor in zip(self.tree.fork_all(cursors), cursors, strict=True):
            assert twin.matched == cursor.matched
            self.live[twin] = list(self.live[cursor])
        assert self.tree.clock > clock

    @precondition(lambda self: self.live)
    @rule(data=st.data(), tokens=SHORT)
    def append(self, data: st.DataObject, tokens: list[int]) -> None:
        cursor = self.pick(data)
        self.tree.append(cursor, tokens)
        self.live[cursor] = self.live[cursor] + tokens

    @precondition(lambda self: self.live)
    @rule(data=st.data(), most=st.integers(1, 12))
    def compute(self, data: st.DataObject, most: int) -> None:
        self.compute_path(self.pick(data), most)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), num_slots=st.integers(0, 40))
    def make_room_ahead(self, data: st.DataObject, num_slots: int) -> None:
        cursor = self.pick(data)
        before = self.tree.evictable, self.tree.room_ahead(cursor)
        self.tree.make_room_ahead(cursor, num_slots)
        assert self.tree.evictable == before[0], "nothing is evicted for room"
        assert self.tree.room_ahead(cursor) in (before[1], num_slots)

    @rule(tokens=TOKENS, reuse=st.booleans(), keep=st.booleans())
    def serve(self, tokens: list[int], reuse: bool, keep: bool) -> None:
        """A whole request at once: it repeats cached prefixes and presses on the pool."""
        cursor = self.tree.open(tokens, reuse=reuse)
        self.live[cursor] = tokens
        self.compute_path(cursor, len(tokens))
        if keep:
            self.kept.append(self.computed(cursor))
        self.tree.close(cursor, keep=keep)
        del self.live[cursor]

    def compute_path(self, cursor: Cursor, most: int) -> None:
        """Compute up to `most` pending tokens of a path, as a prefill chunk would."""
        for node in self.tree.path(cursor):
            end = min(len(node.tokens), node.num_computed + most)
            need = end - node.num_slots
            state = (self.tree.num_free, self.tree.num_reserved, self.tree.evictable)
            if need > self.tree.available:
                with pytest.raises(OutOfSlots):
                    self.tree.reserve_slots(node, end)
                assert state == (self.tree.num_free, self.tree.num_reserved, self.tree.evictable)
                return
            self.tree.reserve_slots(node, end)
            slots = self.tree.slots_of(node, node.num_computed, end)
            begin = node.start + node.num_computed
            for position, slot in enumerate(slots.tolist(), begin):
                self.memory[slot] = tuple(self.live[cursor][: position + 1])
            most -= end - node.num_computed
            self.tree.mark_computed(node, end)
            if end < len(node.tokens):
                return

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 10))
    def try_tokens(self, data: st.DataObject, count: int) -> None:
        """A draft behind a path: some tokens hold, the slots of the others are free again."""
        cursor = self.pick(data)
        if self.tree.pending(cursor) or not cursor.node.is_tip:
            return
        state = (self.tree.num_free, self.tree.num_reserved, self.tree.evictable)
        if count > self.tree.available:
            with pytest.raises(OutOfSlots):
                self.tree.lend_slots(cursor, count)
            assert state == (self.tree.num_free, self.tree.num_reserved, self.tree.evictable)
            return
        available = self.tree.available
        slots = self.tree.lend_slots(cursor, count)
        assert self.tree.available == available - count
        self.tree.check_integrity()
        places = sorted(data.draw(st.sets(st.integers(0, count - 1))))
        tokens = [place % 3 for place in places]
        for slot in slots.tolist():  # what held these slots before is gone
            self.memory[slot] = (-1,)
        for place, token in zip(places, tokens, strict=True):
            self.live[cursor] = [*self.live[cursor], token]
            self.memory[int(slots[place])] = tuple(self.live[cursor])
        self.tree.take_back(cursor, tokens, places)
        assert self.tree.available == available - len(places)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        cursor = self.pick(data)
        before = self.tree.num_free
        self.kept.append(self.computed(cursor))
        freed = self.tree.close(cursor, keep=True)
        assert freed == self.tree.num_free - before
        tokens = self.live.pop(cursor)
        if cursor.pins:
            self.held[cursor] = tokens

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 4))
    def prune(self, data: st.DataObject, count: int) -> None:
        doomed = {self.pick(data) for _ in range(count)}
        before = self.tree.num_free
        if any(cursor.pins for cursor in doomed):
            with pytest.raises(InputError):
                self.tree.prune(doomed)
            assert self.tree.num_free == before
            return
        assert self.tree.prune(doomed) == self.tree.num_free - before
        for cursor in doomed:
            del self.live[cursor]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 3))
    def drop(self, data: st.DataObject, count: int) -> None:
        dropped = {self.pick(data) for _ in range(count)}
        others = [c for c in [*self.live, *self.held] if c not in dropped or c.pins]
        safe = {c: self.tree.pending(c) for c in others}
        before = self.tree.num_free
        private = sum(self.tree.private_slots(c) for c in dropped)
        assert self.tree.drop(*dropped) == self.tree.num_free - before >= private
        assert safe == {c: self.tree.pending(c) for c in others}
        used_by_others = {node for c in others for node in self.tree.path(c)}
        for cursor in dropped - set(others):
            held = {n for n in self.tree.path(cursor) if n.extents or n.reserved}
            assert held <= used_by_others

    @rule(num_slots=st.integers(0, NUM_SLOTS))
    def evict(self, num_slots: int) -> None:
        before, evictable = self.tree.num_free, self.tree.evictable
        freed = self.tree.evict(num_slots)
        assert freed == self.tree.num_free - before == evictable - self.tree.evictable
        assert freed >= min(num_slots, evictable)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        self.tree.pin(self.pick(data))

    @precondition(lambda self: any(c.pins for c in [*self.live, *self.held]))
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        pinned = [c for c in [*self.live, *self.held] if c.pins]
        cursor = self.pick(data, pinned)
        if cursor in self.held and cursor.pins == 1:
            self.kept.append(self.computed(cursor))
            del self.held[cursor]
        self.tree.unpin(cursor)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        """A row per fully computed path sees exactly its own prefix."""
        ready = [c for c in self.live if c.length and not self.tree.pending(c)]
        ready = data.draw(st.permutations(ready))
        forest = build_forest([(c.node, c.offset) for c in ready])
        forest.validate()
        assert forest.path_len.tolist() == [c.length for c in ready]
        for row, cursor in enumerate(ready):
            node, slots = int(forest.query_node[row]), []
            while node >= 0:
                runs = range(forest.run_indptr[node], forest.run_indptr[node + 1])
                spans = [np.arange(forest.run_len[r]) + forest.run_begin[r] for r in runs]
                slots = np.concatenate(spans).tolist() + slots
                node = int(forest.parent[node])
            path = self.live[cursor]
            assert [self.memory[s] for s in slots] == [
                tuple(path[: i + 1]) for i in range(len(path))
            ]

    @invariant()
    def is_sound(self) -> None:
        self.tree.check_integrity()

    @invariant()
    def paths_keep_their_tokens(self) -> None:
        for cursor, tokens in [*self.live.items(), *self.held.items()]:
            path = [token for node in self.tree.path(cursor) for token in node.tokens]
            assert path == tokens and cursor.length == len(tokens)
            computed = sum(node.num_computed for node in self.tree.path(cursor))
            assert self.tree.pending(cursor) == len(tokens) - computed

    @invariant()
    def computed_tokens_read_their_own_prefix(self) -> None:
        for node, path in walk(self.tree):
            slots = self.tree.slots_of(node, 0, node.num_computed).tolist()
            for position, slot in enumerate(slots, node.start + 1):
                assert self.memory[slot] == tuple(path[:position])

    @invariant()
    def the_cache_holds_only_what_was_kept(self) -> None:
        for node, path in walk(self.tree):
            if node.ref == 0:
                assert any(kept[: len(path)] == tuple(path) for kept in self.kept)

    def teardown(self) -> None:
        for index, cursor in enumerate(list(self.tree.cursors)):
            while cursor.pins:
                self.tree.unpin(cursor)
            if cursor.is_open:
                self.tree.close(cursor, keep=index % 2 == 0)
            self.tree.check_integrity()
        self.tree.evict(NUM_SLOTS)
        self.tree.check_integrity()
        assert self.tree.num_free == NUM_SLOTS
        assert self.tree.root.children == []


TestTreeMachine = TreeMachine.TestCase
TestTreeMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
