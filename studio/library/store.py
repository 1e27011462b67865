"""The page's library: pictures to search, mark, delete and bring back, with their settings and traces; and past jobs.

Knows pictures and owners; knows nothing of pages. Nothing is read or changed for anyone but its owner.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from studio.engine.job import Job, JobRejected, JobView, Picture
from studio.engine.requests import Request, request_from
from studio.engine.trace import Trace
from studio.library.files import translate_errors
from studio.library.journal import ANONYMOUS, MAX_CRASHES, DiskJournal, searchable_text

log = logging.getLogger(__name__)

GIGABYTE = 1_000_000_000
UNDO_SECONDS = 600.0  # a deleted picture can be brought back for so long
PURGE_SECONDS = 60.0  # how often, at most, what was deleted is looked for
FORGET_SECONDS = 7 * 86_400.0  # jobs that left no picture, and pictures of PASSING owners, are kept for so long
MAX_WORDS = 100  # of a search
MAX_LIMIT = 1000  # pictures or jobs in one answer

_AMONG = "(SELECT value FROM json_each(?))"  # ids, as a JSON list


@dataclass(frozen=True)
class JobRecord(JobView):
    """A job as it was written down. What was asked for is in `settings`: `request` is None, since pictures that the job
    began with are not read from the disk for it."""

    request: Request | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class Library(DiskJournal):
    """A folder with library.sqlite, pictures/, traces/, inputs/, secret and key. Safe to use from several threads.

    owner_quota_bytes: of each owner's pictures and those they began with; a job that may exceed it is refused.
    trace_quota_bytes: of all traces; beyond it the oldest go, those of favourites last.
    model: its name, for the settings of the pictures.
    most_crashes: a job that was under way when so many processes were killed fails, instead of being taken up again.

    Raises Refusal if the folder cannot be used, or another process uses it. So do the methods, with a sentence, when
    the disk is full, read-only or broken: nothing is torn then, and it may do later.
    """

    def __init__(
        self,
        folder: Path,
        *,
        owner_quota_bytes: int = GIGABYTE,
        trace_quota_bytes: int = 2 * GIGABYTE,
        model: str = "",
        most_crashes: int = MAX_CRASHES,
    ):
        super().__init__(folder, owner_quota_bytes, trace_quota_bytes, model, most_crashes)
        self._purged = float("-inf")  # when, by a clock that never goes back
        self._now_and_then()

    def secret(self) -> str:
        """Made once for this folder, for what browsers keep: they are told it."""
        return self._files.secret

    def key(self) -> str:
        """Made once for this folder, and told to nobody."""
        return self._files.key

    def save_results(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> tuple[Picture, ...]:
        kept = super().save_results(job, images, traces)
        self._now_and_then()
        return kept

    def pictures(
        self,
        owner: str,
        *,
        search: str = "",
        task: str | None = None,
        day: str | None = None,
        favourites: bool = False,
        limit: int = 60,
        before: str | None = None,
    ) -> list[Picture]:
        """The owner's pictures, newest first, without those deleted.

        search: words that must all be somewhere in the prompt, in any order, in great or small letters.
        task: only of this one.  day: only of this local day, "2026-11-21".  favourites: only these.
        limit, before: at most so many, of those that are older than the picture with the id `before`.

        Raises ValueError for a day that is none.
        """
        where, values = ["owner = ?", "deleted IS NULL"], [owner]
        for word in searchable_text(search).split()[:MAX_WORDS]:
            where.append("instr(words, ?)")
            values.append(word)
        if task is not None:
            where.append("task = ?")
            values.append(task)
        if day is not None:
            where.append("created >= ? AND created < ?")
            values += _day(day)
        if favourites:
            where.append("favourite")
        if before is not None:
            where.append("number < (SELECT number FROM pictures WHERE id = ? AND owner = ?)")
            values += [before, owner]
        self._now_and_then()
        with translate_errors("The library could not be read"):
            return self._found(f"{' AND '.join(where)} ORDER BY number DESC LIMIT ?", *values, _limit(limit))

    def picture(self, owner: str, id: str) -> Picture | None:
        with translate_errors("The library could not be read"):
            return next(iter(self._found("id = ? AND owner = ? AND deleted IS NULL", id, owner)), None)

    def trace(self, owner: str, picture_id: str) -> Trace | None:
        """The run that made the picture; None if it was not kept, or is no more."""
        if self.picture(owner, picture_id) is None:
            return None
        try:
            return self._files.read_trace(picture_id)
        except (OSError, ValueError):
            return None

    def request(self, owner: str, picture_id: str) -> Request | None:
        """What gives this one picture again, with the pictures it began with; None if the owner has no such picture.

        Raises Refusal if those pictures are gone.
        """
        picture = self.picture(owner, picture_id)
        if picture is None:
            return None
        with translate_errors("The library could not be read"):
            job = self._db.one("SELECT job FROM pictures WHERE id = ?", picture_id)
            try:
                return request_from(picture.settings, self._read_inputs(job["job"] if job else 0))
            except (OSError, ValueError, SyntaxError) as problem:
                raise JobRejected("What this picture was made from cannot be read any more.") from problem

    def inputs(self, owner: str, picture_id: str) -> dict[str, Path]:
        """The files of the pictures that this one was made from, by their names in the request."""
        if self.picture(owner, picture_id) is None:
            return {}
        with translate_errors("The library could not be read"):
            rows = self._db.all(
                "SELECT what, name FROM inputs WHERE job = (SELECT job FROM pictures WHERE id = ?)", picture_id
            )
        return {row["what"]: self._files.input_path(row["name"]) for row in rows}

    def days(self, owner: str) -> list[tuple[str, int]]:
        """The local days on which the owner's pictures were made, newest first, and how many they are."""
        with translate_errors("The library could not be read"):
            rows = self._db.all("SELECT created FROM pictures WHERE owner = ? AND deleted IS NULL", owner)
        counts = Counter(datetime.fromtimestamp(row["created"]).date().isoformat() for row in rows)
        return sorted(counts.items(), reverse=True)

    def favourite(self, owner: str, id: str, on: bool) -> bool:
        """Whether the owner has such a picture."""
        with translate_errors("The picture could not be marked"), self._db.transaction() as db:
            sql = "UPDATE pictures SET favourite = ? WHERE id = ? AND owner = ? AND deleted IS NULL"
            return db.execute(sql, (bool(on), id, owner)).rowcount == 1

    def delete(self, owner: str, ids: Sequence[str]) -> int:
        """Hides pictures at once; their files go after UNDO_SECONDS. Returns how many they were."""
        with translate_errors("The pictures could not be deleted"):
            self._reserve.give()
            with self._db.transaction() as db:
                sql = f"UPDATE pictures SET deleted = ? WHERE deleted IS NULL AND owner = ? AND id IN {_AMONG}"
                return db.execute(sql, (time.time(), owner, json.dumps(list(ids)))).rowcount

    def undo_delete(self, owner: str, ids: Sequence[str]) -> int:
        """Brings pictures back that were deleted less than UNDO_SECONDS ago. Returns how many."""
        with translate_errors("The pictures could not be brought back"), self._db.transaction() as db:
            sql = f"UPDATE pictures SET deleted = NULL WHERE deleted > ? AND owner = ? AND id IN {_AMONG}"
            return db.execute(sql, (time.time() - UNDO_SECONDS, owner, json.dumps(list(ids)))).rowcount

    def purge(self) -> None:
        """Removes for good what was deleted UNDO_SECONDS ago, or sooner, the oldest first, where what an owner has
        deleted exceeds the quota by itself; forgets jobs that left nothing, and what owners left who cannot come back.
        Happens now and then by itself."""
        with translate_errors("What was deleted could not be removed"):
            self._reserve.give()
            forgotten = time.time() - FORGET_SECONDS
            with self._db.transaction() as db:
                passed = "UPDATE pictures SET deleted = created WHERE deleted IS NULL AND created < ? AND owner GLOB ?"
                db.execute(passed, (forgotten, f"{ANONYMOUS}*"))
                gone = db.execute(
                    "SELECT number, id FROM (SELECT number, id, deleted, SUM(bytes) OVER (PARTITION BY owner "
                    "ORDER BY deleted DESC, number DESC) AS total FROM pictures WHERE deleted IS NOT NULL) "
                    "WHERE deleted <= ? OR total > ?",
                    (time.time() - UNDO_SECONDS, self._quota),
                ).fetchall()
                for row in gone:  # first, since a disk that is full may have no room for the transaction
                    self._files.remove_picture(row["id"])
                db.executemany("DELETE FROM pictures WHERE number = ?", [(row["number"],) for row in gone])
                empty = "state != 'queued' AND NOT EXISTS (SELECT 1 FROM pictures WHERE job = jobs.number)"
                inputs = db.execute(f"SELECT name FROM inputs JOIN jobs ON number = job WHERE {empty}").fetchall()
                db.execute(f"DELETE FROM jobs WHERE {empty} AND (state = 'done' OR ended < ?)", (forgotten,))
            self._files.sweep_inputs(self._inputs_in_use, {row["name"] for row in inputs})
            self._reserve.take()

    def job(self, owner: str, id: str) -> JobRecord | None:
        """A job, ended or not, as it was last written down."""
        with translate_errors("The library could not be read"):
            row = self._db.one("SELECT * FROM jobs WHERE id = ? AND owner = ?", id, owner)
            return self._record(row) if row else None

    def recent_jobs(self, owner: str, limit: int = 20) -> list[JobRecord]:
        """The owner's jobs that have ended, newest first."""
        with translate_errors("The library could not be read"):
            sql = "SELECT * FROM jobs WHERE owner = ? AND state != 'queued' ORDER BY number DESC LIMIT ?"
            return [self._record(row) for row in self._db.all(sql, owner, _limit(limit))]

    def usage(self, owner: str) -> tuple[int, int]:
        """The bytes of the owner's pictures and of those they began with, without what was deleted; and the quota."""
        with translate_errors("The library could not be read"):
            return self._used(owner), self._quota

    def _record(self, row: sqlite3.Row) -> JobRecord:
        settings = json.loads(row["settings"])
        return JobRecord(
            id=row["id"],
            task=row["task"],
            caption=row["caption"],
            count=settings["count"],
            state=row["state"],
            step=settings["steps"] if row["state"] == "done" else 0,
            steps=settings["steps"],
            share=float(row["state"] == "done"),
            ahead=0,
            eta_seconds=None,
            previews=(),
            created=row["created"],
            error=row["error"],
            notes=tuple(json.loads(row["notes"])),
            seconds=row["seconds"],
            pictures=tuple(self._found("job = ? AND deleted IS NULL ORDER BY place", row["number"])),
            settings=settings,
        )

    def _now_and_then(self) -> None:
        if time.monotonic() - self._purged < PURGE_SECONDS:
            return
        self._purged = time.monotonic()
        try:
            self.purge()
        except JobRejected as problem:
            log.warning("%s", problem)


def _day(day: str) -> tuple[float, float]:
    """When a local day begins and ends."""
    try:
        first = datetime.combine(date.fromisoformat(day), datetime.min.time())
        return first.timestamp(), (first + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError) as problem:
        raise ValueError(f'The day must be one like 2026-11-21; it was "{day}".') from problem


def _limit(limit: int) -> int:
    return max(1, min(int(limit), MAX_LIMIT))
