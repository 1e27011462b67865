"""The library's SQLite file: its tables, its transactions, and one connection that many threads use.

Knows SQL; knows nothing of pictures or of the files beside it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.engine.job import JobRejected

BUSY_SECONDS = 10.0  # how long to wait for another program that has the file, a backup perhaps


# FORMS[n] makes form n + 1 of form n; the file remembers its form as `user_version`. Only ever add to the end.
FORMS = [
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,     -- in the order in which they came
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        state TEXT NOT NULL,            -- queued until it ends: whether it had begun makes no difference afterwards
        place REAL NOT NULL,
        created REAL NOT NULL,          -- seconds since 1970, as all times
        ended REAL,
        task TEXT NOT NULL,
        caption TEXT NOT NULL,
        settings TEXT NOT NULL,         -- JSON
        error TEXT,
        notes TEXT NOT NULL DEFAULT '[]',
        seconds REAL NOT NULL DEFAULT 0,
        reserved INTEGER NOT NULL       -- bytes that its pictures may need; 0 once it has ended
    );
    CREATE INDEX jobs_waiting ON jobs (place) WHERE state = 'queued';
    CREATE INDEX jobs_of_owner ON jobs (owner, number);
    CREATE TABLE pictures (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        job INTEGER NOT NULL REFERENCES jobs,
        owner TEXT NOT NULL,
        place INTEGER NOT NULL,         -- of the job's pictures, from 0
        task TEXT NOT NULL,
        seed INTEGER NOT NULL,
        settings TEXT NOT NULL,
        words TEXT NOT NULL,            -- what a search looks through
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        trace_bytes INTEGER NOT NULL,   -- 0: none
        created REAL NOT NULL,
        favourite INTEGER NOT NULL DEFAULT 0,
        deleted REAL,
        UNIQUE (job, place)
    );
    CREATE INDEX pictures_of_owner ON pictures (owner, number);
    CREATE INDEX pictures_deleted ON pictures (deleted) WHERE deleted IS NOT NULL;
    CREATE INDEX pictures_traced ON pictures (trace_bytes) WHERE trace_bytes > 0;
    CREATE TABLE inputs (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        what TEXT NOT NULL,             -- the field of the request
        name TEXT NOT NULL,             -- the file's, shared by all jobs that begin with the same pixels
        bytes INTEGER NOT NULL,
        PRIMARY KEY (job, what)
    );
    CREATE INDEX inputs_by_name ON inputs (name)
    """,
    # processes that began the job and came to a sudden end before it did
    "ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 0",
]


class Database:
    """The file, made where there is none, and brought to the newest form.

    One connection behind a lock: statements take well under a millisecond, and a reader never sees half a change.
    Raises Refusal for a file of a newer form, sqlite3.Error for one that cannot be used.
    """

    def __init__(self, file: Path):
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare(file)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, file: Path) -> None:
        with self._lock:
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
            (form,) = self._connection.execute("PRAGMA user_version").fetchone()
            if form > len(FORMS):
                raise JobRejected(
                    f"The library {file} was written by a newer Diffusion Studio; this one cannot read it."
                )
            for number in range(form, len(FORMS)):
                script = f"BEGIN IMMEDIATE; {FORMS[number]}; PRAGMA user_version = {number + 1}; COMMIT"
                self._connection.executescript(script)

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        return next(iter(self.all(sql, *values)), None)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside is done and on the disk afterwards, or, if anything is raised, nothing is."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself has taken some back
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()
