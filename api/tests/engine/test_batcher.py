"""The batcher against a model whose runs the test itself lets go."""

from __future__ import annotations

import asyncio
import random
import time

import numpy as np
import pytest
from engine.gated import Counted, Doubler, row

from ml_inference.engine.batcher import Batcher
from ml_inference.engine.batches import BatchConfig
from ml_inference.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    TooLarge,
)

pytestmark = pytest.mark.anyio


def soon(seconds=20.0):
    return time.monotonic() + seconds


async def began(model):
    """Wait until a lane has entered the model."""
    await asyncio.get_running_loop().run_in_executor(None, model.started.acquire)


async def settled(condition):
    """Let the loop turn until `condition()` holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_lone_request_runs_at_once_even_when_the_timeout_is_long():
    model, seen = Doubler(), Counted()
    batcher = Batcher(model, BatchConfig(size=8, timeout=5.0), seen)
    started = time.monotonic()
    answer = await batcher.submit(row(3), soon())
    assert time.monotonic() - started < 1.0
    assert answer.outputs["y"].tolist() == [[6.0]]
    await batcher.close()


async def test_requests_that_come_while_a_batch_runs_form_the_next_one():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=8), seen)
    first = asyncio.create_task(batcher.submit(row(0), soon()))
    await began(model)
    rest = [asyncio.create_task(batcher.submit(row(i), soon())) for i in range(1, 12)]
    await settled(lambda: batcher.pending_requests == 11)
    model.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert [float(a.outputs["y"][0, 0]) for a in answers] == [2.0 * i for i in range(12)]
    assert seen.rows == [1, 8, 3]
    assert [a.batch_rows for a in answers] == [1] + [8] * 8 + [3] * 3
    await batcher.close()


async def test_a_foreign_shape_does_not_fragment_a_batch():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=4), seen)
    blocker = asyncio.create_task(batcher.submit(row(9), soon()))
    await began(model)
    shapes = [1, 2, 1, 3, 1, 2, 1]
    tasks = [asyncio.create_task(batcher.submit(row(i, width=w), soon())) for i, w in enumerate(shapes)]
    await settled(lambda: batcher.pending_requests == len(shapes))
    model.gate.set()
    answers = await asyncio.gather(*tasks)
    await blocker
    for i, (answer, width) in enumerate(zip(answers, shapes, strict=True)):
        assert answer.outputs["y"].tolist() == [[2.0 * i] * width]
    assert sorted(seen.rows) == [1, 1, 2, 4]
    await batcher.close()


async def test_fixed_policy_fills_or_times_out():
    model, seen = Doubler(), Counted()
    batcher = Batcher(model, BatchConfig(size=4, timeout=0.2, policy="fixed"), seen)
    started = time.monotonic()
    await batcher.submit(row(1), soon())
    assert 0.15 < time.monotonic() - started < 2.0
    started = time.monotonic()
    await asyncio.gather(*(batcher.submit(row(i), soon()) for i in range(4)))
    assert time.monotonic() - started < 0.15
    assert seen.rows == [1, 4]
    await batcher.close()


async def test_adaptive_policy_waits_only_for_what_is_known_to_arrive():
    model, seen = Doubler(), Counted()
    batcher = Batcher(model, BatchConfig(size=4, timeout=2.0), seen)

    async def late():
        with batcher.expect():
            await asyncio.sleep(0.05)
        return await batcher.submit(row(2), soon())

    arriving = asyncio.create_task(late())
    await asyncio.sleep(0)
    answers = await asyncio.gather(batcher.submit(row(1), soon()), arriving)
    assert [a.batch_rows for a in answers] in ([2, 2], [1, 1])  # the last arrival may end the wait first
    assert answers[0].queue_seconds < 1.0
    await batcher.close()


async def test_a_request_larger_than_a_batch_is_split_and_joined_in_order():
    model, seen = Doubler(), Counted()
    batcher = Batcher(model, BatchConfig(size=4, lanes=2), seen)
    x = np.arange(11, dtype=np.float32)[:, None]
    answer = await batcher.submit({"x": x}, soon())
    np.testing.assert_array_equal(answer.outputs["y"], x * 2)
    assert sorted(seen.rows) == [3, 4, 4]
    await batcher.close()


async def test_one_bad_item_fails_alone():
    model, seen = Doubler(gated=True, fails_on=5), Counted()
    batcher = Batcher(model, BatchConfig(size=16), seen)
    blocker = asyncio.create_task(batcher.submit(row(100), soon()))
    await began(model)
    tasks = [asyncio.create_task(batcher.submit(row(i), soon())) for i in range(10)]
    await settled(lambda: batcher.pending_requests == 10)
    model.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await blocker
    for i, result in enumerate(results):
        if i == 5:
            assert isinstance(result, InferenceFailed)
            assert "ValueError" in str(result)
        else:
            assert result.outputs["y"].tolist() == [[2.0 * i]]
    await batcher.close()


async def test_a_caller_who_leaves_the_queue_takes_nobody_with_it():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=8), seen)
    blocker = asyncio.create_task(batcher.submit(row(100), soon()))
    await began(model)
    tasks = [asyncio.create_task(batcher.submit(row(i), soon())) for i in range(3)]
    await settled(lambda: batcher.pending_requests == 3)
    tasks[1].cancel()
    await settled(lambda: batcher.pending_requests == 2)
    model.gate.set()
    assert (await tasks[0]).outputs["y"].tolist() == [[0.0]]
    assert (await tasks[2]).outputs["y"].tolist() == [[4.0]]
    assert tasks[1].cancelled()
    await blocker
    assert [batch.ravel().tolist() for batch in model.batches] == [[100.0], [0.0, 2.0]]
    await batcher.close()


async def test_a_run_that_nobody_waits_for_is_told_to_stop_and_the_lane_goes_on():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=8), seen)
    lonely = asyncio.create_task(batcher.submit(row(1), soon()))
    await began(model)
    lonely.cancel()
    await settled(model.aborted.is_set)
    assert (await batcher.submit(row(2), soon())).outputs["y"].tolist() == [[4.0]]
    assert seen.restarts == 0
    await batcher.close()


async def test_a_run_is_not_stopped_while_somebody_still_waits_for_it():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=8), seen)
    blocker = asyncio.create_task(batcher.submit(row(100), soon()))
    await began(model)
    stays, leaves = (asyncio.create_task(batcher.submit(row(i), soon())) for i in (1, 2))
    await settled(lambda: batcher.pending_requests == 2)
    model.gate.set()
    await blocker
    model.gate.clear()
    leaves.cancel()
    model.gate.set()
    assert (await stays).outputs["y"].tolist() == [[2.0]]
    assert not model.aborted.is_set()
    await batcher.close()


async def test_a_deadline_ends_a_request_on_time_though_its_lane_is_stuck():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=1), seen)
    stuck = asyncio.create_task(batcher.submit(row(1), soon()))
    await began(model)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(row(2), soon(0.1))
    assert 0.08 < time.monotonic() - started < 1.0
    assert batcher.pending_requests == 0
    model.gate.set()
    await stuck
    assert len(model.batches) == 1, "what has timed out in the queue never runs"
    await batcher.close()


async def test_a_kernel_that_ignores_the_stop_costs_its_lane_and_nothing_else():
    model, seen = Doubler(gated=True), Counted()
    model._stop = lambda _: None  # a kernel that cannot be interrupted
    batcher = Batcher(model, BatchConfig(size=1, hang_seconds=0.1), seen)
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(row(1), soon(0.05))
    await settled(lambda: seen.restarts == 1)
    model.gate.set()
    assert (await batcher.submit(row(2), soon())).outputs["y"].tolist() == [[4.0]]
    assert batcher.healthy
    await batcher.close()


async def test_a_dead_lane_fails_its_waiters_and_restarts():
    deaths = iter([True])

    def run(tensors, abort):
        if next(deaths, False):
            raise SystemExit
        return {"y": tensors["x"]}

    seen = Counted()
    batcher = Batcher(run, BatchConfig(), seen)
    with pytest.raises(InferenceFailed, match="restarted"):
        await batcher.submit(row(1), soon())
    assert (await batcher.submit(row(2), soon())).outputs["y"].tolist() == [[2.0]]
    assert seen.restarts == 1
    await batcher.close()


async def test_the_queue_is_bounded_by_requests_and_by_bytes():
    model, seen = Doubler(gated=True), Counted()
    batcher = Batcher(model, BatchConfig(size=1, queue_requests=3, queue_bytes=100), seen)
    running = asyncio.create_task(batcher.submit(row(0), soon()))
    await began(model)
    waiting = [asyncio.create_task(batcher.submit(row(i), soon())) for i in range(2)]
    await settled(lambda: batcher.pending_requests == 2)
    with pytest.raises(Overloaded, match="bytes") as full:
        await batcher.submit(row(1, width=24), soon())
    assert full.value.retry_after >= 1.0
    with pytest.raises(TooLarge):
        await batcher.submit(row(1, width=26), soon())
    waiting.append(asyncio.create_task(batcher.submit(row(3), soon())))
    await settled(lambda: batcher.pending_requests == 3)
    with pytest.raises(Overloaded, match="3 requests"):
        await batcher.submit(row(4), soon())
    model.gate.set()
    await asyncio.gather(running, *waiting)
    assert (batcher.pending_requests, batcher.pending_bytes) == (0, 0)
    await batcher.close()


async def test_what_cannot_meet_its_deadline_is_refused_at_the_door():
    def slow(tensors, abort):
        time.sleep(0.2)
        return {"y": tensors["x"]}

    batcher = Batcher(slow, BatchConfig(size=1), Counted())
    await batcher.submit(row(0), soon())  # the batcher learns what a row costs
    tasks = [asyncio.create_task(batcher.submit(row(i), soon())) for i in range(4)]
    await asyncio.sleep(0.01)
    assert 0.4 < batcher.predicted_wait() < 1.2
    started = time.monotonic()
    with pytest.raises(Overloaded) as refused:
        await batcher.submit(row(9), soon(0.1))
    assert time.monotonic() - started < 0.05
    assert refused.value.reason == "deadline"
    assert 0.4 < refused.value.retry_after < 1.2
    await asyncio.gather(*tasks)
    await batcher.close()


async def test_an_answer_with_another_number_of_rows_is_a_failure():
    batcher = Batcher(lambda tensors, _: {"y": tensors["x"][:1]}, BatchConfig(), Counted())
    with pytest.raises(InferenceFailed, match="2 rows went in"):
        await batcher.submit(row(1, rows=2), soon())
    await batcher.close()


async def test_a_graph_without_a_batch_axis_gets_its_tensors_as_they_are():
    seen = Counted()
    batcher = Batcher(lambda tensors, _: {"y": tensors["x"].sum()[None]}, BatchConfig(batched=False), seen)
    answers = await asyncio.gather(*(batcher.submit(row(i, rows=3), soon()) for i in range(4)))
    assert [float(a.outputs["y"][0]) for a in answers] == [0.0, 3.0, 6.0, 9.0]
    await batcher.close()


async def test_close_answers_what_was_accepted_and_refuses_the_rest():
    model = Doubler(gated=True)
    batcher = Batcher(model, BatchConfig(size=1, timeout=5.0, policy="fixed"), Counted())
    tasks = [asyncio.create_task(batcher.submit(row(i), soon())) for i in range(3)]
    await began(model)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await batcher.submit(row(9), soon())
    model.gate.set()
    assert [float((await task).outputs["y"][0, 0]) for task in tasks] == [0.0, 2.0, 4.0]
    await closing


async def test_a_thousand_callers_who_come_and_go_get_their_own_answers_or_none():
    dice = random.Random(7)
    seen = Counted()
    batcher = Batcher(Doubler(fails_on=13), BatchConfig(size=8, lanes=2, queue_requests=5000), seen)

    async def call(i):
        rows = dice.choice([1, 1, 1, 2, 19])
        width = dice.choice([1, 2])
        value = 13 if i % 50 == 13 else i + 1000
        task = asyncio.create_task(batcher.submit(row(value, rows, width), soon()))
        if i % 10 == 4:
            await asyncio.sleep(dice.random() * 0.01)
            if task.cancel():
                return "left"
        try:
            answer = await task
        except InferenceFailed:
            return "failed" if value == 13 else "wrong"
        np.testing.assert_array_equal(answer.outputs["y"], np.full((rows, width), 2 * value))
        return "answered"

    ends = await asyncio.gather(*(call(i) for i in range(1000)))
    counts = {end: ends.count(end) for end in set(ends)}
    assert counts.keys() <= {"answered", "failed", "left"}
    assert counts["failed"] == 20
    assert counts["answered"] + counts.get("left", 0) == 980
    assert (batcher.pending_requests, batcher.pending_bytes) == (0, 0)
    await batcher.close()
