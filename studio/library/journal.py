"""The engine's journal on a disk: jobs that outlive the process, and the pictures that they made.

Knows jobs, pictures and owners; knows nothing of samplers, queues or pages. A file is there before the row that names
it, and goes before that row does: a crash at any moment leaves at worst a file that the same job, taken up again,
writes again under the same name.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from studio.engine.job import Job, JobRejected, Picture
from studio.engine.requests import InvalidRequest, Request, request_from
from studio.engine.trace import Trace
from studio.library.blobs import BlobStore
from studio.library.database import Database
from studio.library.files import DiskReserve, FolderLock, translate_errors

log = logging.getLogger(__name__)

PAINTED_BYTES = 100_000  # more than a picture painted from words takes up, without its words
WORD_BYTES = 30  # a character of a prompt in a picture's metadata, at most: it stands there as text and as JSON

ANONYMOUS = "call:"  # how the names of owners begin who come once, and can never ask for their pictures again
KEPT_FREE = 500_000_000  # bytes of the disk that no picture is to take, at most a hundredth of it
MAX_CRASHES = 4

_ENDED = "The pictures were not kept, because their job has ended already."
_KILLS = (
    "The studio was killed {times} times while this job was under way, so it is not taken up again: it may need more "
    "memory than there is. Ask for something smaller."
)


class DiskJournal:
    """A folder with library.sqlite, pictures/, traces/, inputs/, secret and key, which one process works in at a time.

    quota: bytes of each owner's pictures.  trace_quota: bytes of all traces.  model: its name, for the settings.
    most_crashes: a job that was under way when so many processes were killed is not taken up again.

    Raises Refusal if the folder cannot be used.
    """

    def __init__(self, folder: Path, quota: int, trace_quota: int, model: str, most_crashes: int = MAX_CRASHES):
        self.folder = Path(folder).resolve()
        self.model = model
        self._quota, self._trace_quota, self._most_crashes = quota, trace_quota, most_crashes
        with translate_errors(f"The library in {self.folder} could not be opened"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._folder_lock = FolderLock(self.folder)
            try:
                self._reserve = DiskReserve(self.folder)
                self._reserve.give()
                self._files = BlobStore(self.folder)
                self._db = Database(self.folder / "library.sqlite")
            except BaseException:
                self._folder_lock.release()
                raise
            try:
                traced = self._db.all("SELECT id FROM pictures WHERE trace_bytes > 0")
                self._files.remove_other_traces({row["id"] for row in traced})
                self._files.sweep_inputs(self._inputs_in_use)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Lets another process have the folder. Nobody was killed: the jobs under way are not to blame for anything."""
        with suppress(JobRejected, sqlite3.Error), self._db.transaction() as db:
            db.execute("UPDATE jobs SET begun = 0 WHERE state = 'queued'")
        self._db.close()
        self._folder_lock.release()

    def add_job(self, job: Job) -> None:
        """The job is on the disk when this returns. Raises Refusal if its owner, or the disk, has no room for it."""
        pictures = job.request.pictures()
        with translate_errors("The job could not be taken"):
            self._make_room(job)
            self._check_room(job)
            try:
                with self._files.inputs_written(pictures.values()) as inputs, self._db.transaction() as db:
                    self._check_room(job, inputs)  # another of the owner's may have come meanwhile
                    number = _insert(
                        db,
                        "jobs",
                        id=job.id,
                        owner=job.owner,
                        state="queued",
                        place=job.order,
                        created=job.created,
                        task=job.request.task,
                        caption=storable(job.request.caption),
                        settings=json.dumps(job.request.settings()),
                        reserved=_most_bytes(job.request),
                    )
                    for what, (name, size) in zip(pictures, inputs, strict=True):
                        _insert(db, "inputs", job=number, what=what, name=name, bytes=size)
            except BaseException:
                self._files.sweep_inputs(self._inputs_in_use)
                raise

    def mark_started(self, job: Job) -> None:
        """Begun once more: a job that was under way whenever the process was killed may be what killed it."""
        with translate_errors("A job's beginning could not be written down"), self._db.transaction() as db:
            db.execute("UPDATE jobs SET begun = begun + 1 WHERE id = ? AND state = 'queued'", (job.id,))

    def save_results(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> tuple[Picture, ...]:
        """Keeps the pictures with their traces, and the job is done: all or nothing. Again, it changes nothing.

        Raises Refusal if the disk will not, or the job was cancelled.
        """
        with translate_errors("The pictures could not be kept"):
            row = self._db.one("SELECT number, state FROM jobs WHERE id = ? AND owner = ?", job.id, job.owner)
            if row is None or row["state"] not in ("queued", "done"):
                raise JobRejected(_ENDED)
            if row["state"] == "queued":
                try:
                    pairs = zip(images, traces, strict=True)
                    kept = [self._write(job, index, *pair) for index, pair in enumerate(pairs)]
                    self._files.sync()
                    dropped = self._write_done(job, row["number"], kept)
                except BaseException:
                    self._remove_files(job.id, len(images))
                    raise
                for id in dropped:
                    self._files.remove_trace(id)
            return tuple(self._found("job = ? ORDER BY place", row["number"]))

    def mark_ended(self, job: Job) -> None:
        """The job was cancelled or failed. If that cannot be written down, it is taken up again at the next start."""
        try:
            with translate_errors("A job's end could not be written down"):
                self._reserve.give()
                self._end(job.id, job.request.count, job.state, job.error, job.notes, job.seconds)
        except JobRejected as problem:
            log.warning("%s", problem)

    def update_order(self, job: Job) -> None:
        """Its place changed. If that cannot be written down, the old one counts at the next start."""
        try:
            with translate_errors("A job's place could not be written down"), self._db.transaction() as db:
                db.execute("UPDATE jobs SET place = ? WHERE id = ?", (job.order, job.id))
        except JobRejected as problem:
            log.warning("%s", problem)

    def load_unfinished(self) -> list[Job]:
        """The jobs that have not ended, by place. One whose pictures are gone, or that seems to kill whatever process
        begins it, has failed."""
        jobs: list[Job] = []
        with translate_errors("The jobs that wait could not be read"):
            for row in self._db.all("SELECT * FROM jobs WHERE state = 'queued' ORDER BY place, number"):
                settings = json.loads(row["settings"])
                if row["begun"] >= self._most_crashes:
                    self._end(row["id"], settings["count"], "failed", _KILLS.format(times=row["begun"]))
                    continue
                try:
                    request = request_from(settings, self._read_inputs(row["number"]))
                except (OSError, ValueError, SyntaxError) as problem:
                    log.warning("a job cannot be taken up again", exc_info=problem)
                    why = str(problem) if isinstance(problem, InvalidRequest) else "A picture it began with is gone."
                    self._end(row["id"], settings["count"], "failed", f"The job could not be taken up again. {why}")
                    continue
                jobs.append(Job(request, row["owner"], row["id"], "queued", row["created"], row["place"]))
                jobs[-1].crashes = row["begun"]
        return jobs

    # ---- rows ----

    def _found(self, where: str, *values: object) -> list[Picture]:
        sql = f"SELECT *, (SELECT id FROM jobs WHERE number = job) AS job_id FROM pictures WHERE {where}"
        return [
            Picture(
                id=row["id"],
                job_id=row["job_id"],
                index=row["place"],
                seed=row["seed"],
                path=str(self._files.picture_path(row["id"])),
                settings=json.loads(row["settings"]),
                width=row["width"],
                height=row["height"],
                created=row["created"],
                favourite=bool(row["favourite"]),
                has_trace=row["trace_bytes"] > 0,
            )
            for row in self._db.all(sql, *values)
        ]

    def _write(self, job: Job, index: int, image: Image.Image, trace: Trace | None) -> dict[str, Any]:
        """Writes a picture and its trace to the disk, and gives the row for them."""
        id, seed = self._files.picture_id(job.id, index), job.request.seeds[index]
        caption = job.request.captions[index]
        settings = job.request.settings() | {
            "caption": caption,
            "seed": seed,
            "count": 1,
            "size": f"{image.width}x{image.height}",
            "seconds": round(job.seconds, 3),
        }
        if self.model:
            settings["model"] = self.model
        size, trace_size = self._files.write_picture(id, image, settings), 0
        if trace is not None:
            try:
                trace_size = self._files.write_trace(id, trace)
            except (OSError, ValueError) as problem:  # no reason to lose the picture
                log.warning("a trace was not kept: %s", problem)
        return {
            "id": id,
            "place": index,
            "seed": seed,
            "settings": json.dumps(settings),
            "words": searchable_text(caption),
            "width": image.width,
            "height": image.height,
            "bytes": size,
            "trace_bytes": trace_size,
        }

    def _write_done(self, job: Job, number: int, kept: list[dict[str, Any]]) -> list[str]:
        """Writes down that the job is done; returns the ids of pictures whose traces are to go, beyond the quota."""
        now = time.time()
        with self._db.transaction() as db:
            done = db.execute(
                "UPDATE jobs SET state = 'done', ended = ?, notes = ?, seconds = ?, reserved = 0 "
                "WHERE number = ? AND state = 'queued'",
                (now, json.dumps(job.notes), job.seconds, number),
            )
            if done.rowcount != 1:
                raise JobRejected(_ENDED)
            for row in kept:
                _insert(db, "pictures", job=number, owner=job.owner, task=job.request.task, created=now, **row)
            dropped = db.execute(
                "SELECT number, id FROM (SELECT number, id, SUM(trace_bytes) OVER (ORDER BY favourite DESC, "
                "deleted IS NOT NULL, number DESC) AS total FROM pictures WHERE trace_bytes > 0) WHERE total > ?",
                (self._trace_quota,),
            ).fetchall()
            for row in dropped:
                db.execute("UPDATE pictures SET trace_bytes = 0 WHERE number = ?", (row["number"],))
        return [row["id"] for row in dropped]

    def _end(
        self, id: str, count: int, state: str, error: str | None, notes: Sequence[str] = (), seconds: float = 0.0
    ) -> None:
        with self._db.transaction() as db:
            ended = db.execute(
                "UPDATE jobs SET state = ?, error = ?, notes = ?, seconds = ?, ended = ?, reserved = 0 "
                "WHERE id = ? AND state = 'queued'",
                (state, error, json.dumps(notes), seconds, time.time(), id),
            )
            if ended.rowcount != 1:
                return
            self._remove_files(id, count)  # there are some if it was being kept when the process crashed
            inputs = "FROM inputs WHERE job = (SELECT number FROM jobs WHERE id = ?)"
            names = [row["name"] for row in db.execute(f"SELECT name {inputs}", (id,))]
            db.execute(f"DELETE {inputs}", (id,))
        self._files.sweep_inputs(self._inputs_in_use, names)

    def _remove_files(self, job_id: str, count: int) -> None:
        for index in range(count):
            self._files.remove_picture(self._files.picture_id(job_id, index))

    def _read_inputs(self, job: int) -> dict[str, Image.Image]:
        rows = self._db.all("SELECT what, name FROM inputs WHERE job = ?", job)
        return {row["what"]: self._files.read_input(row["name"]) for row in rows}

    def _inputs_in_use(self) -> set[str]:
        return {row["name"] for row in self._db.all("SELECT DISTINCT name FROM inputs")}

    def _used(self, owner: str, inputs: Sequence[tuple[str, int]] = ()) -> int:
        """Bytes of the owner's pictures and of what they began with, and of these inputs (name, bytes)."""
        (pictures,) = self._db.one("SELECT SUM(bytes) FROM pictures WHERE owner = ? AND deleted IS NULL", owner)
        kept = self._db.all(
            "SELECT DISTINCT name, bytes FROM inputs JOIN jobs ON number = job WHERE owner = ? "
            "AND (state = 'queued' OR EXISTS (SELECT 1 FROM pictures WHERE job = jobs.number AND deleted IS NULL))",
            owner,
        )
        return (pictures or 0) + sum(({row["name"]: row["bytes"] for row in kept} | dict(inputs)).values())

    def _make_room(self, job: Job) -> None:
        """Who comes once cannot delete: the oldest of what such an owner left goes, as far as the quota asks for it."""
        (reserved,) = self._db.one("SELECT SUM(reserved) FROM jobs WHERE owner = ?", job.owner)
        beyond = self._used(job.owner) + (reserved or 0) + _most_bytes(job.request) - self._quota
        if not job.owner.startswith(ANONYMOUS) or beyond <= 0:
            return
        with self._db.transaction() as db:
            db.execute(
                "UPDATE pictures SET deleted = ? WHERE number IN (SELECT number FROM (SELECT number, bytes, SUM(bytes) "
                "OVER (ORDER BY number) AS total FROM pictures WHERE owner = ? AND deleted IS NULL) "
                "WHERE total - bytes < ?)",
                (time.time(), job.owner, beyond),
            )

    def _check_room(self, job: Job, inputs: Sequence[tuple[str, int]] = ()) -> None:
        """Raises Refusal if the owner's pictures, and what unfinished jobs and this one may add, exceed the quota.

        inputs: what this one begins with (name, bytes), once that is written.
        """
        (reserved,) = self._db.one("SELECT SUM(reserved) FROM jobs WHERE owner = ?", job.owner)
        used, more = self._used(job.owner, inputs), (reserved or 0) + _most_bytes(job.request)
        if used + more > self._quota:
            raise JobRejected(
                f"Your pictures take up {used / 1e6:,.1f} of {self._quota / 1e6:,.1f} MB, and this, with what is "
                f"waiting, may need {more / 1e6:,.1f} MB more; please delete some first."
            )
        (all_reserved,) = self._db.one("SELECT SUM(reserved) FROM jobs")
        disk = shutil.disk_usage(self.folder)
        if disk.free < min(KEPT_FREE, disk.total // 100) + (all_reserved or 0) + _most_bytes(job.request):
            raise JobRejected(
                "The studio's disk is nearly full: pictures must be deleted before there is room for more."
            )


def _insert(db: sqlite3.Connection, table: str, **row: object) -> int:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    return db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values())).lastrowid or 0


def _most_bytes(request: Request) -> int:
    """More than the pictures of a request will take up: a byte a value, where their size is known, and their words."""
    bands = 3 if request.image is None else len(request.image.getbands())
    characters = max(map(len, request.captions)) + len(request.negative_prompt)
    return bands * request.pixels + (PAINTED_BYTES + WORD_BYTES * characters) * request.count


def storable(text: str) -> str:
    """As SQLite can hold it: half surrogate pairs and NUL become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


def searchable_text(text: str) -> str:
    """As searches compare it: small letters, in one form."""
    return unicodedata.normalize("NFKC", storable(text)).casefold()
