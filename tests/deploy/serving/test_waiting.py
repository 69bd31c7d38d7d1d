"""The queue: its bound, what it merges, what it drops."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from deploy.serving.refusals import Kind, RefusalError
from deploy.serving.waiting import Job, Waiting


def job(rows: int = 1, width: int = 3, deadline: float = 1e12) -> tuple[Job, list[Any]]:
    got: list[Any] = []
    x = np.zeros((rows, width), np.float32)
    return Job({"x": x}, rows, ((width,),), deadline, got.append), got


def rows(jobs: list[Job]) -> list[int]:
    return [one.rows for one in jobs]


def test_one_more_than_the_limit_is_refused() -> None:
    waiting = Waiting(2)
    waiting.put(job()[0])
    waiting.put(job()[0])
    with pytest.raises(RefusalError, match="2 requests wait already; try again later") as caught:
        waiting.put(job()[0])
    assert caught.value.kind is Kind.BUSY
    waiting.take(1)
    waiting.put(job()[0])


def test_it_takes_what_waits_up_to_the_limit_of_rows_in_order() -> None:
    waiting = Waiting(9)
    for count in (1, 2, 4, 1):
        waiting.put(job(count)[0])
    assert rows(waiting.take(4)) == [1, 2]
    assert rows(waiting.take(8)) == [4, 1]


def test_a_request_of_more_rows_than_the_limit_runs_alone() -> None:
    waiting = Waiting(9)
    waiting.put(job(50)[0])
    waiting.put(job(1)[0])
    assert rows(waiting.take(4)) == [50]
    assert rows(waiting.take(4)) == [1]


def test_only_rows_of_one_shape_are_merged() -> None:
    waiting = Waiting(9)
    for width in (3, 5, 5):
        waiting.put(job(width=width)[0])
    assert [one.key for one in waiting.take(8)] == [((3,),)]
    assert [one.key for one in waiting.take(8)] == [((5,),), ((5,),)]


def test_who_waited_too_long_is_told_and_who_left_is_dropped() -> None:
    waiting = Waiting(9)
    late, got = job(deadline=time.monotonic() - 1)
    gone, nothing = job()
    gone.dropped = True
    for one in (late, gone, job(7)[0]):
        waiting.put(one)
    assert rows(waiting.take(8)) == [7]
    assert isinstance(got[0], RefusalError)
    assert got[0].kind is Kind.EXPIRED
    assert "for the engine, too long" in got[0].reason
    assert nothing == []


def test_closing_lets_what_waits_be_taken_and_nothing_else_in() -> None:
    waiting = Waiting(9)
    waiting.put(job()[0])
    waiting.close()
    with pytest.raises(RefusalError, match="the server is stopping"):
        waiting.put(job()[0])
    assert rows(waiting.take(1)) == [1]
    assert waiting.take(1) == []


def test_closing_wakes_who_waits_for_work() -> None:
    waiting = Waiting(9)
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(waiting.take(1)))
    thread.start()
    waiting.close()
    thread.join(20)
    assert taken == [[]]
