"""Each job is done by one worker at a time, and one that dies loses nothing; on SQLite and PostgreSQL."""

import threading

import pytest

from host_trainer.server.fleet import Fleet
from host_trainer.server.jobs import ATTEMPTS, FIRST_DELAY_S, RETRAIN, Job, Jobs, LeaseLostError


@pytest.fixture
def jobs(fleet: Fleet) -> Jobs:
    return Jobs(fleet.database)


def taken(jobs: Jobs, now: int, worker: str = "w") -> Job:
    job = jobs.take([RETRAIN], worker, now, lease_s=10)
    assert job is not None
    return job


def test_a_job_is_taken_once(jobs: Jobs) -> None:
    number = jobs.put(RETRAIN, "waste", {"run": 1}, now=0)
    job = taken(jobs, 1)
    assert (job.id, job.subject, job.payload, job.attempt) == (number, "waste", {"run": 1}, 1)
    assert jobs.take([RETRAIN], "other", 2) is None
    jobs.finish(job, {"bundle": 7}, 3)
    assert jobs.take([RETRAIN], "other", 10_000) is None


def test_the_same_wish_twice_is_one_job_until_it_is_done(jobs: Jobs) -> None:
    first = jobs.put(RETRAIN, "waste", {}, now=0)
    assert jobs.put(RETRAIN, "waste", {}, now=1) == first
    assert jobs.put(RETRAIN, "fruit", {}, now=1) != first
    jobs.finish(taken(jobs, 1), {}, 2)
    assert jobs.put(RETRAIN, "waste", {}, now=3) != first


def test_other_kinds_are_left_alone(jobs: Jobs) -> None:
    jobs.put("export", "waste", {}, now=0)
    assert jobs.take([RETRAIN], "w", 1) is None


def test_one_that_is_not_due_waits(jobs: Jobs) -> None:
    jobs.put(RETRAIN, "waste", {}, now=0, due_at=100)
    assert jobs.take([RETRAIN], "w", 99) is None
    taken(jobs, 100)


def test_the_job_of_a_worker_that_fell_silent_is_taken_up(jobs: Jobs) -> None:
    jobs.put(RETRAIN, "waste", {}, now=0)
    first = taken(jobs, 0)
    assert jobs.take([RETRAIN], "other", 9) is None
    second = taken(jobs, 10, "other")
    assert (second.id, second.attempt) == (first.id, 2)
    for late in (
        lambda: jobs.beat(first, 11),
        lambda: jobs.finish(first, {}, 11),
        lambda: jobs.fail(first, "", 11),
    ):
        with pytest.raises(LeaseLostError):
            late()
    jobs.finish(second, {}, 12)


def test_a_worker_restarted_under_its_name_is_another_one(jobs: Jobs) -> None:
    jobs.put(RETRAIN, "waste", {}, now=0)
    first = taken(jobs, 0)
    taken(jobs, 10)
    with pytest.raises(LeaseLostError):
        jobs.finish(first, {}, 11)


def test_a_worker_that_is_heard_of_keeps_its_job(jobs: Jobs) -> None:
    jobs.put(RETRAIN, "waste", {}, now=0)
    job = taken(jobs, 0)
    for now in (5, 10, 15):
        job = jobs.beat(job, now, lease_s=10)
        assert job.lease_until == now + 10
    assert jobs.take([RETRAIN], "other", 24) is None


def test_a_job_that_fails_is_tried_later_and_not_for_ever(jobs: Jobs) -> None:
    jobs.put(RETRAIN, "waste", {}, now=0)
    now = 0
    for attempt in range(1, ATTEMPTS + 1):
        job = taken(jobs, now)
        has_later = jobs.fail(job, "the disk is full", now)
        assert has_later == (attempt < ATTEMPTS)
        wait = FIRST_DELAY_S * 2 ** (attempt - 1)
        assert jobs.take([RETRAIN], "w", now + wait - 1) is None
        now += wait
    assert jobs.take([RETRAIN], "w", now + 10**6) is None


def test_one_that_kills_its_workers_is_given_up(jobs: Jobs) -> None:
    jobs.put(RETRAIN, "waste", {}, now=0, attempts=2)
    taken(jobs, 0)
    taken(jobs, 10)
    assert jobs.take([RETRAIN], "w", 20) is None
    assert jobs.put(RETRAIN, "waste", {}, now=21) > 1


def test_many_workers_at_once_share_the_jobs_and_none_is_done_twice(jobs: Jobs) -> None:
    numbers = {jobs.put(RETRAIN, f"model-{k}", {}, now=0) for k in range(24)}
    done: list[int] = []

    def work(name: str) -> None:
        while (job := jobs.take([RETRAIN], name, 1)) is not None:
            done.append(job.id)
            jobs.finish(job, {}, 2)

    workers = [threading.Thread(target=work, args=(f"w{k}",)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(done) == sorted(numbers)


def test_two_wishes_at_once_are_one_job(jobs: Jobs) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(jobs.put(RETRAIN, "waste", {}, now=0)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 4
    assert len(set(numbers)) == 1
