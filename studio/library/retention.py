"""How much room each owner has, and how long pictures, traces and jobs are kept."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Sequence

from studio.engine.job import Job, JobRejected
from studio.library.blobs import StoredInput
from studio.library.files import translate_errors
from studio.library.storage import Storage

log = logging.getLogger(__name__)

GIGABYTE = 1_000_000_000
MIN_FREE_BYTES = 500_000_000  # of the disk that pictures leave free, or a hundredth of it if that is less
UNDO_SECONDS = 600.0  # how long a deleted picture can be restored
FORGET_SECONDS = 7 * 86_400.0  # how long jobs without pictures, and pictures of anonymous owners, are kept
PURGE_SECONDS = 60.0  # the shortest time between two purges

ANONYMOUS = "call:"  # prefix of owners that exist for one call of the API and can never ask for their pictures again

# Upper bounds of what a job's results need.
PICTURE_BYTES = 100_000  # a picture of the model's own size, with its metadata but without the prompt
CHARACTER_BYTES = 30  # a character of a prompt in the metadata, which hold it as text and as JSON


class Retention:
    """The quotas of a data folder, and the removal of what is over them or out of date.

    owner_quota_bytes: for each owner's pictures and the inputs of their jobs.
    trace_quota_bytes: for all traces together.
    """

    def __init__(self, storage: Storage, *, owner_quota_bytes: int, trace_quota_bytes: int):
        self.owner_quota_bytes = owner_quota_bytes
        self._storage, self._trace_quota_bytes = storage, trace_quota_bytes
        self._last_purge = float("-inf")  # by the monotonic clock

    def used_bytes(self, owner: str, new_inputs: Sequence[StoredInput] = ()) -> int:
        """Return the bytes of an owner's visible pictures and of the inputs in use, with the new ones added."""
        pictures = self._storage.query_value(
            "SELECT COALESCE(SUM(bytes), 0) FROM pictures WHERE owner = ? AND deleted IS NULL", owner
        )
        rows = self._storage.query(
            "SELECT DISTINCT name, bytes FROM inputs JOIN jobs ON number = job WHERE owner = ? "
            "AND (state = 'queued' OR EXISTS (SELECT 1 FROM pictures WHERE job = jobs.number AND deleted IS NULL))",
            owner,
        )
        inputs = {row["name"]: row["bytes"] for row in rows} | dict(new_inputs)  # a shared file counts once
        return pictures + sum(inputs.values())

    def check_room(self, owner: str, needed_bytes: int, new_inputs: Sequence[StoredInput] = ()) -> None:
        """Raise JobRejected if a job's results may exceed the owner's quota or the disk, with all jobs in the queue."""
        reserved = "SELECT COALESCE(SUM(reserved), 0) FROM jobs"
        used = self.used_bytes(owner, new_inputs)
        needed = needed_bytes + self._storage.query_value(f"{reserved} WHERE owner = ?", owner)
        if used + needed > self.owner_quota_bytes:
            raise JobRejected(
                f"Your pictures take up {used / 1e6:,.1f} of {self.owner_quota_bytes / 1e6:,.1f} MB, and this job and "
                f"those in the queue may need {needed / 1e6:,.1f} MB more. Please delete some pictures first."
            )
        disk = shutil.disk_usage(self._storage.folder)
        min_free = min(MIN_FREE_BYTES, disk.total // 100)
        if disk.free < min_free + needed_bytes + self._storage.query_value(reserved):
            raise JobRejected("The studio's disk is nearly full: please delete some pictures first.")

    def delete_oldest_anonymous(self, owner: str, needed_bytes: int) -> None:
        """Delete the oldest pictures of an anonymous owner, who cannot do so, as far as its quota requires."""
        if not owner.startswith(ANONYMOUS):
            return
        reserved = self._storage.query_value("SELECT COALESCE(SUM(reserved), 0) FROM jobs WHERE owner = ?", owner)
        excess = self.used_bytes(owner) + reserved + needed_bytes - self.owner_quota_bytes
        if excess > 0:
            with self._storage.transaction() as db:
                db.execute(
                    "UPDATE pictures SET deleted = ? WHERE number IN (SELECT number FROM (SELECT number, bytes, "
                    "SUM(bytes) OVER (ORDER BY number) AS total FROM pictures WHERE owner = ? AND deleted IS NULL) "
                    "WHERE total - bytes < ?)",
                    (time.time(), owner, excess),
                )

    def drop_traces(self, db: sqlite3.Connection) -> list[str]:
        """Set trace_bytes to 0 for the oldest traces over the quota, favourites last. Return their pictures' ids."""
        rows = db.execute(
            "SELECT number, id FROM (SELECT number, id, SUM(trace_bytes) OVER (ORDER BY favourite DESC, "
            "deleted IS NOT NULL, number DESC) AS total FROM pictures WHERE trace_bytes > 0) WHERE total > ?",
            (self._trace_quota_bytes,),
        ).fetchall()
        db.executemany("UPDATE pictures SET trace_bytes = 0 WHERE number = ?", [(row["number"],) for row in rows])
        return [row["id"] for row in rows]

    def purge(self) -> None:
        """Remove deleted pictures for good, and forget old jobs without pictures.

        A deleted picture goes after UNDO_SECONDS, or sooner if its owner's deleted pictures exceed the quota by
        themselves. Pictures of anonymous owners are deleted after FORGET_SECONDS.

        Raises JobRejected if the disk fails.
        """
        storage, now = self._storage, time.time()
        with translate_errors("Deleted pictures could not be removed"):
            storage.reserve.free_space()
            with storage.transaction() as db:
                db.execute(
                    "UPDATE pictures SET deleted = created WHERE deleted IS NULL AND created < ? AND owner GLOB ?",
                    (now - FORGET_SECONDS, f"{ANONYMOUS}*"),
                )
                expired = db.execute(
                    "SELECT number, id FROM (SELECT number, id, deleted, SUM(bytes) OVER (PARTITION BY owner "
                    "ORDER BY deleted DESC, number DESC) AS total FROM pictures WHERE deleted IS NOT NULL) "
                    "WHERE deleted <= ? OR total > ?",
                    (now - UNDO_SECONDS, self.owner_quota_bytes),
                ).fetchall()
                for row in expired:  # before the rows: a full disk may have no room for the transaction
                    storage.blobs.remove_picture(row["id"])
                db.executemany("DELETE FROM pictures WHERE number = ?", [(row["number"],) for row in expired])
                is_empty = "state != 'queued' AND NOT EXISTS (SELECT 1 FROM pictures WHERE job = jobs.number)"
                inputs = db.execute(f"SELECT name FROM inputs JOIN jobs ON number = job WHERE {is_empty}").fetchall()
                db.execute(
                    f"DELETE FROM jobs WHERE {is_empty} AND (state = 'done' OR ended < ?)", (now - FORGET_SECONDS,)
                )
            storage.remove_unused_inputs({row["name"] for row in inputs})
            storage.reserve.refill()

    def purge_if_due(self) -> None:
        """Purge if the last time was PURGE_SECONDS ago. Failures are logged only."""
        if time.monotonic() - self._last_purge < PURGE_SECONDS:
            return
        self._last_purge = time.monotonic()
        try:
            self.purge()
        except JobRejected as problem:
            log.warning("%s", problem)


def estimate_bytes(job: Job) -> int:
    """Return an upper bound of the bytes of a job's pictures: a byte a channel where their size is known, and text."""
    request = job.request
    channels = 3 if request.image is None else len(request.image.getbands())
    characters = max(map(len, job.resolved.captions)) + len(request.negative_prompt)
    return channels * job.resolved.pixels + (PICTURE_BYTES + CHARACTER_BYTES * characters) * request.count
