"""Slots foretold against the books that follow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ramify.cache import TokenTree, next_in_line, slots_ahead


@given(st.data())
def test_the_books_give_the_slots_that_were_foretold(data: st.DataObject) -> None:
    tree = TokenTree(400, reserve=data.draw(st.sampled_from([0, 4, 64])))
    other = tree.open(range(20, 23))
    cursor = tree.open(range(data.draw(st.integers(1, 30))))
    most = data.draw(st.integers(1, 12))
    for path in (cursor, other):
        tree.reserve_slots(path.node, len(path.node.tokens))
        tree.mark_computed(path.node, len(path.node.tokens))
    tree.lend_slots(cursor, data.draw(st.integers(1, most)))
    for _ in range(data.draw(st.integers(1, 6))):
        num_lent = sum(extent.size for extent in cursor.node.lent)
        ahead = slots_ahead(cursor, most + 1)
        places = sorted(data.draw(st.sets(st.integers(0, num_lent - 1)))) if num_lent else []
        own, line = next_in_line(ahead, num_lent, places)
        before = len(cursor.node.tokens)
        tree.take_back(cursor, [3] * len(places), places)
        assert tree.slots_of(cursor.node, before).tolist() == own.tolist()
        size = data.draw(st.integers(1, most))
        is_foretold = len(line) > size
        tree.append(cursor, [4])
        tree.reserve_slots(cursor.node, len(cursor.node.tokens))
        tree.mark_computed(cursor.node, len(cursor.node.tokens))
        tip = tree.slot_of(cursor.node, len(cursor.node.tokens) - 1)
        loan = tree.lend_slots(cursor, size).tolist()
        if is_foretold:
            assert [tip, *loan] == line[: size + 1].tolist()
        tree.check_integrity()
