"""The engine's journal on a disk: jobs that outlive the process, and the pictures that they make.

A file is written before the row that names it, and removed before that row. So a crash leaves at worst a file without a
row, which the same job overwrites when it runs again.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from PIL import Image

from studio.engine.job import Job, JobRejected, Picture, StoredJob
from studio.engine.requests import InvalidRequest, request_from
from studio.engine.trace import Trace
from studio.library.files import translate_errors
from studio.library.retention import Retention, estimate_bytes
from studio.library.storage import Storage, insert_row

log = logging.getLogger(__name__)

MAX_CRASHES = 4

_ENDED = "The pictures were not saved, because their job has ended already."
_CRASHED = (
    "The studio was killed {crashes} times while it ran this job, so the job is not restarted. It may need more memory "
    "than there is: try something smaller."
)


class DiskJournal:
    """The `Journal` protocol over a data folder.

    max_crashes: a job during which so many processes were killed fails instead of running again.

    Methods raise JobRejected with a sentence if the disk is full, read-only or broken. Nothing is half written then.
    """

    def __init__(self, storage: Storage, retention: Retention, *, max_crashes: int = MAX_CRASHES):
        self._storage, self._retention, self._max_crashes = storage, retention, max_crashes

    def close(self) -> None:
        """Note that the process ends in good order: no running job has caused a crash."""
        with suppress(JobRejected, sqlite3.Error), self._storage.transaction() as db:
            db.execute("UPDATE jobs SET begun = 0 WHERE state = 'queued'")

    def add_job(self, job: Job) -> None:
        """Store a new job durably. Raises JobRejected if its owner or the disk has no room for it."""
        needed_bytes = estimate_bytes(job)
        pictures = job.request.pictures()
        blobs = self._storage.blobs
        with translate_errors("The job could not be accepted"):
            self._retention.delete_oldest_anonymous(job.owner, needed_bytes)
            self._retention.check_room(job.owner, needed_bytes)
            try:
                with blobs.write_inputs(pictures.values()) as inputs, self._storage.transaction() as db:
                    # Again, since the inputs' sizes are known now and the owner may have submitted another job.
                    self._retention.check_room(job.owner, needed_bytes, inputs)
                    number = insert_row(
                        db,
                        "jobs",
                        id=job.id,
                        owner=job.owner,
                        state="queued",
                        place=job.order,
                        created=job.created,
                        task=job.request.task,
                        caption=storable(job.resolved.caption),
                        settings=json.dumps(job.resolved.settings),
                        reserved=needed_bytes,
                    )
                    for field, stored in zip(pictures, inputs, strict=True):
                        insert_row(db, "inputs", job=number, what=field, name=stored.name, bytes=stored.size)
            except BaseException:
                self._storage.remove_unused_inputs()
                raise

    def mark_started(self, job: Job) -> None:
        """Add one to the crash count before the job runs. `close` resets it; after a kill it stays."""
        with translate_errors("The start of a job could not be stored"), self._storage.transaction() as db:
            db.execute("UPDATE jobs SET begun = begun + 1 WHERE id = ? AND state = 'queued'", (job.id,))

    def save_results(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> tuple[Picture, ...]:
        """Store a job's pictures and traces and mark it done, all or nothing. A second call changes nothing.

        Raises JobRejected if the disk fails, or the job was cancelled.
        """
        storage = self._storage
        with translate_errors("The pictures could not be saved"):
            rows = storage.query("SELECT number, state FROM jobs WHERE id = ? AND owner = ?", job.id, job.owner)
            if not rows or rows[0]["state"] not in ("queued", "done"):
                raise JobRejected(_ENDED)
            number = rows[0]["number"]
            if rows[0]["state"] == "queued":
                try:
                    columns = self._write_files(job, images, traces)
                    dropped_traces = self._mark_done(job, number, columns)
                except BaseException:
                    self._remove_files(job.id, len(images))
                    raise
                for id in dropped_traces:
                    storage.blobs.remove_trace(id)
            pictures = tuple(storage.find_pictures("job = ? ORDER BY place", number))
        self._retention.purge_if_due()
        return pictures

    def mark_ended(self, job: Job) -> None:
        """Store that a job was cancelled or failed. If the disk fails, the job runs again at the next start."""
        try:
            with translate_errors("The end of a job could not be stored"):
                self._storage.reserve.free_space()
                self._end(job.id, job.request.count, job.state, job.error, job.notes, job.seconds)
        except JobRejected as problem:
            log.warning("%s", problem)

    def update_order(self, job: Job) -> None:
        """Store a job's new order. If the disk fails, the old one counts at the next start."""
        try:
            with translate_errors("The order of a job could not be stored"), self._storage.transaction() as db:
                db.execute("UPDATE jobs SET place = ? WHERE id = ?", (job.order, job.id))
        except JobRejected as problem:
            log.warning("%s", problem)

    def load_unfinished(self) -> list[StoredJob]:
        """Return the jobs that have not ended, by order. One that cannot run again is marked as failed."""
        jobs: list[StoredJob] = []
        with translate_errors("The unfinished jobs could not be read"):
            for row in self._storage.query("SELECT * FROM jobs WHERE state = 'queued' ORDER BY place, number"):
                settings, crashes = json.loads(row["settings"]), row["begun"]
                if crashes >= self._max_crashes:
                    self._end(row["id"], settings["count"], "failed", _CRASHED.format(crashes=crashes))
                    continue
                try:
                    request = request_from(settings, self._storage.read_inputs(row["number"]))
                except (OSError, ValueError, SyntaxError) as problem:
                    log.warning("a job cannot be restarted", exc_info=problem)
                    reason = str(problem) if isinstance(problem, InvalidRequest) else "An input picture is missing."
                    self._end(row["id"], settings["count"], "failed", f"The job could not be restarted. {reason}")
                    continue
                jobs.append(StoredJob(row["id"], row["owner"], request, row["created"], row["place"], crashes=crashes))
        return jobs

    def mark_refused(self, stored: StoredJob, error: str) -> None:
        """Store that an unfinished job failed because its model refuses the request now."""
        try:
            with translate_errors("The end of a job could not be stored"):
                self._end(stored.id, stored.request.count, "failed", error)
        except JobRejected as problem:
            log.warning("%s", problem)

    # ---- rows and files of one job ----

    def _write_files(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> list[dict[str, Any]]:
        """Write a job's pictures and traces. Return the columns of their rows, apart from those of the job."""
        blobs, columns = self._storage.blobs, list[dict[str, Any]]()
        resolved = job.resolved
        shared = resolved.settings | {"count": 1, "seconds": round(job.seconds, 3), "model": resolved.model_name}
        if resolved.model_hash:
            shared["model_hash"] = resolved.model_hash
        captions, seeds = resolved.captions, resolved.seeds
        for index, (image, trace) in enumerate(zip(images, traces, strict=True)):
            caption, seed = captions[index], seeds[index]
            settings = shared | {"caption": caption, "seed": seed, "size": f"{image.width}x{image.height}"}
            id = blobs.picture_id(job.id, index)
            picture_bytes, trace_bytes = blobs.write_picture(id, image, settings), 0
            if trace is not None:
                try:
                    trace_bytes = blobs.write_trace(id, trace)
                except (OSError, ValueError) as problem:  # the picture is worth more than its trace
                    log.warning("a trace was not saved: %s", problem)
            columns.append(
                {
                    "id": id,
                    "place": index,
                    "seed": seed,
                    "settings": json.dumps(settings),
                    "words": searchable_text(caption),
                    "width": image.width,
                    "height": image.height,
                    "bytes": picture_bytes,
                    "trace_bytes": trace_bytes,
                }
            )
        blobs.sync()
        return columns

    def _mark_done(self, job: Job, number: int, columns: list[dict[str, Any]]) -> list[str]:
        """Store that a job is done, with its pictures' rows. Return the ids of pictures whose traces are to go."""
        now = time.time()
        with self._storage.transaction() as db:
            updated = db.execute(
                "UPDATE jobs SET state = 'done', ended = ?, notes = ?, seconds = ?, reserved = 0 "
                "WHERE number = ? AND state = 'queued'",
                (now, json.dumps(job.notes), job.seconds, number),
            )
            if updated.rowcount != 1:
                raise JobRejected(_ENDED)
            for row in columns:
                insert_row(db, "pictures", job=number, owner=job.owner, task=job.request.task, created=now, **row)
            return self._retention.drop_traces(db)

    def _end(
        self, id: str, count: int, state: str, error: str | None, notes: Sequence[str] = (), seconds: float = 0.0
    ) -> None:
        """Store how a job ended, unless it has ended before, and remove its files."""
        with self._storage.transaction() as db:
            updated = db.execute(
                "UPDATE jobs SET state = ?, error = ?, notes = ?, seconds = ?, ended = ?, reserved = 0 "
                "WHERE id = ? AND state = 'queued'",
                (state, error, json.dumps(notes), seconds, time.time(), id),
            )
            if updated.rowcount != 1:
                return
            self._remove_files(id, count)  # left by a crash while they were being saved
            inputs = "FROM inputs WHERE job = (SELECT number FROM jobs WHERE id = ?)"
            names = [row["name"] for row in db.execute(f"SELECT name {inputs}", (id,))]
            db.execute(f"DELETE {inputs}", (id,))
        self._storage.remove_unused_inputs(names)

    def _remove_files(self, job_id: str, count: int) -> None:
        for index in range(count):
            self._storage.blobs.remove_picture(self._storage.blobs.picture_id(job_id, index))


def storable(text: str) -> str:
    """Return text that SQLite can store: lone surrogates and NUL become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


def searchable_text(text: str) -> str:
    """Return text as searches compare it: without case, in one Unicode form."""
    return unicodedata.normalize("NFKC", storable(text)).casefold()
