"""The library that the page shows: an owner's pictures with their settings and traces, and past jobs."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from studio.engine.job import JobRejected, JobView, Picture
from studio.engine.requests import Request, request_from, with_current_names
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import Trace
from studio.library.files import translate_errors
from studio.library.journal import MAX_CRASHES, DiskJournal, searchable_text
from studio.library.retention import GIGABYTE, UNDO_SECONDS, Retention
from studio.library.storage import Storage

MAX_WORDS = 100  # of a search
MAX_LIMIT = 1000  # pictures or jobs in one answer

_IN_IDS = "id IN (SELECT value FROM json_each(?))"  # ids as a JSON list
_READ_FAILED = "The library could not be read"


@dataclass(frozen=True)
class JobRecord(JobView):
    """A job as the library stores it. `settings` hold its request without the pictures; `resolved` is None."""

    resolved: ResolvedRequest | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class Library:
    """All pictures and jobs in a data folder. Thread-safe. Every method acts for one owner and no other.

    owner_quota_bytes: for each owner's pictures and the inputs of their jobs; a job that may exceed it is rejected.
    trace_quota_bytes: for all traces; the oldest over it are removed, those of favourites last.
    max_crashes: a job during which so many processes were killed fails instead of running again.

    journal: what the engine writes to.

    Raises JobRejected if the folder cannot be used, or another process uses it. So do the methods if the disk is full,
    read-only or broken; a later call may succeed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        owner_quota_bytes: int = GIGABYTE,
        trace_quota_bytes: int = 2 * GIGABYTE,
        max_crashes: int = MAX_CRASHES,
    ):
        self._storage = Storage(folder)
        self._retention = Retention(
            self._storage, owner_quota_bytes=owner_quota_bytes, trace_quota_bytes=trace_quota_bytes
        )
        self.journal = DiskJournal(self._storage, self._retention, max_crashes=max_crashes)
        self.folder = self._storage.folder
        self.secret = self._storage.blobs.secret  # for the page's browser storage: browsers receive it
        self.key = self._storage.blobs.key  # for names of files: never leaves this process
        self._retention.purge_if_due()

    def close(self) -> None:
        """Let another process use the folder."""
        self.journal.close()
        self._storage.close()

    # ---- pictures ----

    def find_pictures(
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
        """Return the owner's pictures, newest first, without deleted ones.

        search: words that the caption must all contain, in any order, ignoring case.
        task: only pictures of this task.
        day: only pictures of this local day, as in "2026-11-21".
        favourites: only favourites.
        limit: at most so many, 1 to MAX_LIMIT.
        before: only pictures older than the one with this id.

        Raises ValueError if the day is not a date.
        """
        conditions, values = ["owner = ?", "deleted IS NULL"], list[object]([owner])
        for word in searchable_text(search).split()[:MAX_WORDS]:
            conditions.append("instr(words, ?)")
            values.append(word)
        if task is not None:
            conditions.append("task = ?")
            values.append(task)
        if day is not None:
            conditions.append("created >= ? AND created < ?")
            values += _parse_day(day)
        if favourites:
            conditions.append("favourite")
        if before is not None:
            conditions.append("number < (SELECT number FROM pictures WHERE id = ? AND owner = ?)")
            values += [before, owner]
        where = f"{' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
        self._retention.purge_if_due()
        with translate_errors(_READ_FAILED):
            return self._storage.find_pictures(where, *values, _clamp_limit(limit))

    def get_picture(self, owner: str, id: str) -> Picture | None:
        """Return the owner's picture with this id."""
        with translate_errors(_READ_FAILED):
            pictures = self._storage.find_pictures("id = ? AND owner = ? AND deleted IS NULL", id, owner)
        return pictures[0] if pictures else None

    def load_trace(self, owner: str, picture_id: str) -> Trace | None:
        """Return the trace of the run that made the picture; None if it was not saved or is gone."""
        if self.get_picture(owner, picture_id) is None:
            return None
        try:
            return self._storage.blobs.read_trace(picture_id)
        except (OSError, ValueError):
            return None

    def load_request(self, owner: str, picture_id: str) -> Request | None:
        """Return the request that makes this one picture again; None if the owner has no such picture.

        Raises JobRejected if the request or its input pictures cannot be read.
        """
        picture = self.get_picture(owner, picture_id)
        if picture is None:
            return None
        with translate_errors(_READ_FAILED):
            job_number = self._storage.query_value("SELECT job FROM pictures WHERE id = ?", picture_id)
            try:
                return request_from(picture.settings, self._storage.read_inputs(job_number or 0))
            except (OSError, ValueError, SyntaxError) as problem:
                raise JobRejected("The input pictures of this picture can no longer be read.") from problem

    def find_inputs(self, owner: str, picture_id: str) -> dict[str, Path]:
        """Return the files of the picture's input pictures, by the request's fields."""
        if self.get_picture(owner, picture_id) is None:
            return {}
        with translate_errors(_READ_FAILED):
            rows = self._storage.query(
                "SELECT what, name FROM inputs WHERE job = (SELECT job FROM pictures WHERE id = ?)", picture_id
            )
        return {row["what"]: self._storage.blobs.input_path(row["name"]) for row in rows}

    def count_days(self, owner: str) -> list[tuple[str, int]]:
        """Return the local days on which the owner's pictures were made, newest first, each with their number."""
        with translate_errors(_READ_FAILED):
            rows = self._storage.query("SELECT created FROM pictures WHERE owner = ? AND deleted IS NULL", owner)
        counts = Counter(datetime.fromtimestamp(row["created"]).date().isoformat() for row in rows)
        return sorted(counts.items(), reverse=True)

    def set_favourite(self, owner: str, id: str, favourite: bool) -> bool:
        """Mark or unmark a picture as a favourite. Return whether the owner has such a picture."""
        with translate_errors("The favourite could not be changed"), self._storage.transaction() as db:
            sql = "UPDATE pictures SET favourite = ? WHERE id = ? AND owner = ? AND deleted IS NULL"
            return db.execute(sql, (bool(favourite), id, owner)).rowcount == 1

    def delete(self, owner: str, ids: Sequence[str]) -> int:
        """Hide pictures; their files are removed after UNDO_SECONDS. Return how many there were."""
        with translate_errors("The pictures could not be deleted"):
            self._storage.reserve.free_space()
            with self._storage.transaction() as db:
                sql = f"UPDATE pictures SET deleted = ? WHERE deleted IS NULL AND owner = ? AND {_IN_IDS}"
                return db.execute(sql, (time.time(), owner, json.dumps(list(ids)))).rowcount

    def undo_delete(self, owner: str, ids: Sequence[str]) -> int:
        """Restore pictures that were deleted less than UNDO_SECONDS ago. Return how many."""
        with translate_errors("The pictures could not be restored"), self._storage.transaction() as db:
            sql = f"UPDATE pictures SET deleted = NULL WHERE deleted > ? AND owner = ? AND {_IN_IDS}"
            return db.execute(sql, (time.time() - UNDO_SECONDS, owner, json.dumps(list(ids)))).rowcount

    def purge(self) -> None:
        """Remove for good what is deleted or out of date. It also happens by itself, about once a minute."""
        self._retention.purge()

    def get_usage(self, owner: str) -> tuple[int, int]:
        """Return the bytes that the owner's pictures and inputs take up, and the quota."""
        with translate_errors(_READ_FAILED):
            return self._retention.used_bytes(owner), self._retention.owner_quota_bytes

    # ---- jobs ----

    def get_job(self, owner: str, id: str) -> JobRecord | None:
        """Return the owner's job with this id as it was last stored, ended or not."""
        with translate_errors(_READ_FAILED):
            rows = self._storage.query("SELECT * FROM jobs WHERE id = ? AND owner = ?", id, owner)
            return self._read_record(rows[0]) if rows else None

    def find_ended_jobs(self, owner: str, limit: int = 20) -> list[JobRecord]:
        """Return the owner's jobs that have ended, newest first."""
        with translate_errors(_READ_FAILED):
            sql = "SELECT * FROM jobs WHERE owner = ? AND state != 'queued' ORDER BY number DESC LIMIT ?"
            return [self._read_record(row) for row in self._storage.query(sql, owner, _clamp_limit(limit))]

    def _read_record(self, row: sqlite3.Row) -> JobRecord:
        settings = with_current_names(json.loads(row["settings"]))
        is_done = row["state"] == "done"
        where = "job = ? AND deleted IS NULL ORDER BY place"
        return JobRecord(
            id=row["id"],
            task=row["task"],
            caption=row["caption"],
            count=settings["count"],
            state=row["state"],
            step=settings["steps"] if is_done else 0,
            steps=settings["steps"],
            share=float(is_done),
            ahead=0,
            eta_seconds=None,
            previews=(),
            created=row["created"],
            error=row["error"],
            notes=tuple(json.loads(row["notes"])),
            seconds=row["seconds"],
            pictures=tuple(self._storage.find_pictures(where, row["number"])),
            settings=settings,
        )


def _parse_day(day: str) -> tuple[float, float]:
    """Return when a local day begins and ends, in seconds since 1970."""
    try:
        midnight = datetime.combine(date.fromisoformat(day), datetime.min.time())
        return midnight.timestamp(), (midnight + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError) as problem:
        raise ValueError(f'The day must be a date such as 2026-11-21; it was "{day}".') from problem


def _clamp_limit(limit: int) -> int:
    return max(1, min(int(limit), MAX_LIMIT))
