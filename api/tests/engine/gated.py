"""A model whose runs end when the test says so."""

from __future__ import annotations

import threading

import numpy as np


class Counted:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.rows = []
        self.waits = []
        self.restarts = 0

    def ran(self, run):
        self.rows.append(run.rows)

    def queued(self, seconds):
        self.waits.append(seconds)

    def lane_restarted(self):
        self.restarts += 1


class Doubler:
    """Answers `2 x`; a gate may hold its runs, and a value may make it fail."""

    def __init__(self, *, gated=False, fails_on=None):
        self.gate = threading.Event()
        if not gated:
            self.gate.set()
        self.started = threading.Semaphore(0)
        self.fails_on = fails_on
        self.batches = []
        self.aborted = threading.Event()

    def __call__(self, tensors, abort):
        x = tensors["x"]
        self.batches.append(x.copy())
        stopped = threading.Event()
        abort.bind(lambda: self._stop(stopped))
        self.started.release()
        assert self.gate.wait(20)
        if stopped.is_set():
            raise RuntimeError("terminated")
        if self.fails_on is not None and (x == self.fails_on).any():
            raise ValueError("poisoned")
        return {"y": x * 2}

    def _stop(self, stopped):
        stopped.set()
        self.aborted.set()
        self.gate.set()


def row(value, rows=1, width=1):
    return {"x": np.full((rows, width), value, np.float32)}
