"""What can start next: needs first, failures block, passes are shared, and every job ends exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cim_bench.contracts.executor import Job, JobResult, Resources
from cim_bench.contracts.queue import JobQueue, dependants


class Jobs:
    """A graph whose records are a set of names."""

    def __init__(self, jobs: Sequence[Job], finished: Sequence[str] = ()) -> None:
        self.jobs, self.known = jobs, set(finished)

    def finished(self, job: Job) -> JobResult | None:
        return JobResult(job=job, status="skipped") if job.name in self.known else None

    def block(self, job: Job, needs: Sequence[str]) -> JobResult:
        return JobResult(job=job, status="blocked", error=f"needs {' and '.join(needs)}")


def job(name: str, *needs: str, shares: str = "", processes: int = 1) -> Job:
    resources = Resources(processes=processes)
    return Job(name=name, kind="evaluate", subject="s", needs=needs, shares=shares, resources=resources)


def queue_of(*jobs: Job, finished: Sequence[str] = ()) -> JobQueue:
    graph: Any = Jobs(jobs, finished)
    return JobQueue(graph)


def names(jobs: Sequence[Job]) -> list[str]:
    return [one.name for one in jobs]


def done(one: Job) -> JobResult:
    return JobResult(job=one, status="done")


def test_what_most_others_need_comes_first() -> None:
    jobs = [job("a"), job("pretrain"), job("knn", "pretrain"), job("tune", "pretrain"), job("attack", "tune")]
    assert dependants(jobs) == {"a": 0, "pretrain": 3, "knn": 0, "tune": 1, "attack": 0}
    queue = queue_of(*jobs)
    assert [names(queue.take()) for _ in range(3)] == [["pretrain"], ["a"], []]
    queue.end(done(jobs[1]))
    assert [names(queue.take()) for _ in range(3)] == [["tune"], ["knn"], []]


def test_a_pass_waits_for_all_that_share_it_unless_a_slot_would_stand_idle() -> None:
    tune, other = job("two/tune"), job("three/knn")
    early, late = job("one/shift", shares="shift"), job("two/shift", "two/tune", shares="shift")
    queue = queue_of(early, tune, late, other)
    assert names(queue.take()) == ["two/tune"]
    assert names(queue.take()) == ["three/knn"]
    assert names(queue.take()) == ["one/shift"]  # nothing else can start
    queue = queue_of(early, tune, late)
    assert names(queue.take()) == ["two/tune"]
    queue.end(done(tune))
    assert names(queue.take()) == ["one/shift", "two/shift"]


def test_a_failure_blocks_what_needs_it_and_nothing_else() -> None:
    tune, attack, knn = job("tune"), job("attack", "tune"), job("knn")
    queue = queue_of(tune, attack, knn)
    (one,) = queue.take()
    queue.end(JobResult(job=one, status="failed", error="broken"))
    assert [(r.job.name, r.status, r.error) for r in queue.settle()] == [("attack", "blocked", "needs tune")]
    assert names(queue.take()) == ["knn"]


def test_records_decide_what_is_finished_also_of_jobs_that_others_need() -> None:
    queue = queue_of(job("tune"), job("attack", "tune"), finished=["tune", "attack"])
    assert [(r.job.name, r.status) for r in queue.settle()] == [("tune", "skipped"), ("attack", "skipped")]
    assert queue.done


def test_a_job_that_does_not_fit_lets_smaller_ones_pass() -> None:
    queue = queue_of(job("large", processes=2), job("small"))
    assert names(queue.take(lambda one: one.resources.processes <= 1)) == ["small"]


@st.composite
def graphs(draw: st.DrawFn) -> list[Job]:
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 9))):
        needs = draw(st.lists(st.sampled_from([one.name for one in jobs]), max_size=2, unique=True)) if jobs else []
        jobs.append(job(str(number), *needs, shares=draw(st.sampled_from(["", "", "x", "y"]))))
    return jobs


@given(graphs(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_every_job_ends_once_and_after_what_it_needs(jobs: list[Job], slots: int, chance: Any) -> None:
    queue = queue_of(*jobs, finished=[one.name for one in jobs if chance.random() < 0.2])
    ended: dict[str, str] = {}
    running: list[list[Job]] = []
    while not queue.done:
        for result in queue.settle():
            assert result.job.name not in ended
            ended[result.job.name] = result.status
        while len(running) < slots and (batch := queue.take()):
            assert len({one.shares for one in batch}) == 1
            assert all(ended[need] in ("done", "skipped") for one in batch for need in one.needs)
            running.append(batch)
        if running:
            for one in running.pop(chance.randrange(len(running))):
                assert one.name not in ended
                ended[one.name] = "failed" if chance.random() < 0.2 else "done"
                queue.end(JobResult(job=one, status=ended[one.name]))  # type: ignore[arg-type]
    assert ended.keys() == {one.name for one in jobs}
    for one in jobs:
        bad = any(ended[need] in ("failed", "blocked") for need in one.needs)
        assert (ended[one.name] == "blocked") == bad
