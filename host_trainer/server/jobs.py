"""Keeps the queue of work: a worker leases a job for a while, and says now and then that it still has it.

A worker that is killed says nothing more; its lease runs out, and another takes the job up. Each stage of a
job leaves its result in the job's folder, so that nothing is done twice that was done.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from host_trainer.server.database import Database
from host_trainer.server.tables import DONE, GIVEN_UP, LEASED, QUEUED, JobRow

RETRAIN = "retrain"  # kind of a job whose subject is a model
LEASE_S = 300
ATTEMPTS = 5
FIRST_DELAY_S = 60  # before another attempt; doubles with each


class Job(NamedTuple):
    """A job as its worker sees it; see `tables.JobRow`."""

    id: int
    kind: str
    subject: str
    payload: Mapping[str, Any]
    attempt: int
    worker: str
    lease_until: int


class LeaseLostError(Exception):
    """The job is another worker's by now: stop, and leave its folder alone."""


class Jobs:
    """The queue in a fleet's database; several workers on several machines may use it at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        kind: str,
        subject: str,
        payload: Mapping[str, Any],
        now: int,
        due_at: int = 0,
        attempts: int = ATTEMPTS,
    ) -> int:
        """Queue a job and return its number, or that of an open one of the same kind and subject."""
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        job = insert(JobRow).values(
            kind=kind,
            subject=subject,
            payload=dict(payload),
            most=attempts,
            due_at=max(now, due_at),
            made_at=now,
        )
        is_open = (JobRow.kind == kind, JobRow.subject == subject, JobRow.state.in_((QUEUED, LEASED)))
        while True:  # one that is open may be closed before it is read
            with self._database.writing() as session:
                number = session.scalar(job.on_conflict_do_nothing().returning(JobRow.id))
                if number is None:
                    number = session.scalar(select(JobRow.id).where(*is_open))
            if number is not None:
                return number

    def take(self, kinds: Sequence[str], worker: str, now: int, lease_s: int = LEASE_S) -> Job | None:
        """Lease the job that waits longest, or whose worker fell silent; None when there is none.

        On PostgreSQL a job that another worker is just taking is skipped, on SQLite takers wait for each
        other.
        """
        with self._database.writing() as session:
            _give_up(session, now)
            can = or_(
                and_(JobRow.state == QUEUED, JobRow.due_at <= now),
                and_(JobRow.state == LEASED, JobRow.lease_until <= now),
            )
            job = session.scalars(
                select(JobRow)
                .where(JobRow.kind.in_(kinds), can)
                .order_by(JobRow.due_at, JobRow.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if job is None:
                return None
            job.state, job.worker, job.attempts = LEASED, worker, job.attempts + 1
            job.beat_at, job.lease_until = now, now + lease_s
            return Job(
                job.id, job.kind, job.subject, dict(job.payload), job.attempts, worker, job.lease_until
            )

    def beat(self, job: Job, now: int, lease_s: int = LEASE_S) -> Job:
        """Say that the worker still has the job, and return it with its longer lease.

        Raises:
            LeaseLostError: it has it no more.
        """
        with self._database.writing() as session:
            row = _own(session, job)
            row.beat_at, row.lease_until = now, now + lease_s
        return job._replace(lease_until=now + lease_s)

    def finish(self, job: Job, result: Mapping[str, Any], now: int) -> None:
        """Close a job that is done; LeaseLostError when it is another worker's by now."""
        with self._database.writing() as session:
            row = _own(session, job)
            row.state, row.result, row.ended_at, row.words = DONE, dict(result), now, ""

    def fail(self, job: Job, words: str, now: int) -> bool:
        """Put a job back that did not go well, for later; tell whether there is a later.

        Raises:
            LeaseLostError: it is another worker's by now.
        """
        with self._database.writing() as session:
            row = _own(session, job)
            row.words = words
            if row.attempts >= row.most:
                row.state, row.ended_at = GIVEN_UP, now
                return False
            row.state, row.due_at = QUEUED, now + FIRST_DELAY_S * 2 ** (row.attempts - 1)
            return True


def _own(session: Session, job: Job) -> JobRow:
    row = session.get(JobRow, job.id, with_for_update=True)
    # The number of the attempt tells a worker from itself before it was restarted under the same name.
    if row is None or row.state != LEASED or (row.worker, row.attempts) != (job.worker, job.attempt):
        raise LeaseLostError(f"job {job.id} is no longer that of {job.worker}")
    return row


def _give_up(session: Session, now: int) -> None:
    """Close what fell silent at its last attempt."""
    silent = (JobRow.state == LEASED, JobRow.lease_until <= now, JobRow.attempts >= JobRow.most)
    for job in session.scalars(select(JobRow).where(*silent).with_for_update(skip_locked=True)):
        job.state, job.ended_at = GIVEN_UP, now
        job.words = job.words or f"the worker {job.worker} fell silent"
