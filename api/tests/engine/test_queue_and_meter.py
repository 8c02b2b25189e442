"""Bookkeeping of the queue, the costs and the busy lanes, without clock or loop."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_inference.engine.meter import MAX_KEYS, BusyMeter, CostModel
from ml_inference.engine.queue import BatchQueue, Entry, key_of, level_of


def entry(rows, width=1, enqueued=0.0, priority=0):
    tensors = {"x": np.zeros((rows, width), np.float32)}
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    return Entry(tensors, key_of(tensors), level_of(priority), rows, rows * width * 4, enqueued, 1e9, future)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 3)), max_size=20),
    st.integers(1, 8),
    st.sets(st.integers(0, 19)),
)
def test_every_row_is_taken_exactly_once_in_order_and_the_totals_stay_exact(requests, cap, leavers):
    queue = BatchQueue()
    entries = [entry(rows, width, enqueued=i) for i, (rows, width) in enumerate(requests)]
    for e in entries:
        queue.add(e)
    gone = [e for i, e in enumerate(entries) if i in leavers]
    for e in gone:
        queue.discard(e)
    staying = [e for e in entries if e not in gone]
    assert queue.requests == len(staying)
    assert queue.size == sum(e.size for e in staying)
    taken = {id(e): [] for e in staying}
    while queue:
        slices = queue.take(queue.pick(cap, 0.0, 100.0).line, cap)
        assert 0 < sum(s.rows for s in slices) <= cap
        assert len({s.entry.key for s in slices}) == 1
        for s in slices:
            taken[id(s.entry)] += range(s.start, s.stop)
    assert taken == {id(e): list(range(e.rows)) for e in staying}
    assert (queue.requests, queue.size, dict(queue.rows())) == (0, 0, {})


def test_the_oldest_line_is_served_first_unless_it_may_wait_and_another_is_full():
    queue = BatchQueue()
    old, young = entry(1, width=1, enqueued=1.0), [entry(1, width=2, enqueued=2.0) for _ in range(4)]
    for e in [old, *young]:
        queue.add(e)
    assert queue.pick(4, patience=0.0, now=2.0) is old
    assert queue.pick(4, patience=5.0, now=2.0) is young[0]
    assert queue.pick(4, patience=5.0, now=6.5) is old


def test_priority_goes_first_until_the_others_have_waited_long():
    queue = BatchQueue()
    low, normal, high = (entry(1, enqueued=0.0, priority=p) for p in (9, 0, 1))
    for e in (low, normal, high):
        queue.add(e)
    order = []
    while queue:
        order += [s.entry for s in queue.take(queue.pick(1, 0.0, 0.1).line, 1)]
    assert order == [high, normal, low]
    old, fresh = entry(1, enqueued=0.0, priority=9), entry(1, enqueued=1.5, priority=1)
    for e in (fresh, old):
        queue.add(e)
    assert queue.pick(1, 0.0, 2.0) is old


def test_callers_who_have_gone_are_left_out_of_the_batch():
    queue = BatchQueue()
    entries = [entry(1) for _ in range(3)]
    for e in entries:
        queue.add(e)
    entries[1].future.cancel()
    assert [s.entry for s in queue.take(entries[0].line, 8)] == [entries[0], entries[2]]
    assert len(queue) == 0


def test_an_empty_queue_has_nobody_to_pick():
    with pytest.raises(IndexError):
        BatchQueue().pick(1, 0.0, 0.0)


def test_costs_follow_the_machine_and_never_seen_shapes_cost_nothing():
    costs, key = CostModel(), entry(1).key
    assert costs.seconds({key: 5}) == 0.0
    costs.observe(key, rows=4, seconds=0.4)
    assert costs.seconds({key: 5}) == pytest.approx(0.5)
    for _ in range(50):
        costs.observe(key, rows=1, seconds=0.2)
    assert costs.seconds({key: 1}) == pytest.approx(0.2, rel=1e-3)


def test_costs_forget_shapes_that_are_seen_no_more():
    costs = CostModel()
    keys = [entry(1, width=w).key for w in range(1, MAX_KEYS + 2)]
    for key in keys:
        costs.observe(key, 1, 1.0)
    assert costs.seconds({keys[0]: 1}) == 0.0
    assert costs.seconds({keys[-1]: 1}) == 1.0


def test_busy_is_lane_time_spent_running_in_the_window():
    meter = BusyMeter(lanes=2, window=10.0)
    meter.record(0.0, 1.0)
    meter.record(5.0, 9.0)
    assert meter.ratio(10.0) == pytest.approx((1 + 4) / 20)
    assert meter.ratio(16.0) == pytest.approx(3 / 20)
    assert meter.ratio(16.0, running=(14.0,)) == pytest.approx((3 + 2) / 20)
    assert meter.ratio(100.0) == 0.0
