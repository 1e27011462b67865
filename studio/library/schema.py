"""The tables of library.sqlite, and how a file of an earlier version gets the newest ones.

To add a column, append one "ALTER TABLE ... ADD COLUMN ..." to the end of MIGRATIONS. The next start runs it on every
data folder. Then write the column: of a job in journal.py (`add_job`, `mark_ended`), of a picture in journal.py
(`_write_files`), a value that the owner changes in store.py (like `set_favourite`). And read it: of a job in store.py
(`_read_record`), of a picture in storage.py (`find_pictures`).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from studio.engine.job import JobRejected

# MIGRATIONS[n] turns version n into version n + 1. SQLite stores the version of a file as `user_version`. Never change
# or remove an entry: data folders out there have run it already.
MIGRATIONS = [
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,     -- in order of submission
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        state TEXT NOT NULL,            -- 'queued' while waiting or running, then 'done', 'failed' or 'cancelled'
        place REAL NOT NULL,            -- Job.order: jobs start in ascending order
        created REAL NOT NULL,          -- seconds since 1970, as all times
        ended REAL,
        task TEXT NOT NULL,
        caption TEXT NOT NULL,
        settings TEXT NOT NULL,         -- the request without its pictures, as JSON
        error TEXT,                     -- one sentence, if it failed
        notes TEXT NOT NULL DEFAULT '[]',   -- sentences for the owner, as JSON
        seconds REAL NOT NULL DEFAULT 0,    -- from its start to the decoded pictures
        reserved INTEGER NOT NULL       -- bytes that its results may need; 0 when it has ended
    );
    CREATE INDEX jobs_waiting ON jobs (place) WHERE state = 'queued';
    CREATE INDEX jobs_of_owner ON jobs (owner, number);
    CREATE TABLE pictures (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        job INTEGER NOT NULL REFERENCES jobs,
        owner TEXT NOT NULL,
        place INTEGER NOT NULL,         -- Picture.index: position among the job's pictures, from 0
        task TEXT NOT NULL,
        seed INTEGER NOT NULL,
        settings TEXT NOT NULL,         -- as in the PNG file, as JSON
        words TEXT NOT NULL,            -- the text that a search looks through
        width INTEGER NOT NULL,         -- px
        height INTEGER NOT NULL,
        bytes INTEGER NOT NULL,         -- of the PNG file
        trace_bytes INTEGER NOT NULL,   -- of the trace file; 0 if there is none
        created REAL NOT NULL,
        favourite INTEGER NOT NULL DEFAULT 0,
        deleted REAL,                   -- when the owner deleted it; NULL if visible
        UNIQUE (job, place)
    );
    CREATE INDEX pictures_of_owner ON pictures (owner, number);
    CREATE INDEX pictures_deleted ON pictures (deleted) WHERE deleted IS NOT NULL;
    CREATE INDEX pictures_traced ON pictures (trace_bytes) WHERE trace_bytes > 0;
    CREATE TABLE inputs (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        what TEXT NOT NULL,             -- the request's field, such as 'image' or 'mask'
        name TEXT NOT NULL,             -- of the file, which jobs with the same pixels share
        bytes INTEGER NOT NULL,
        PRIMARY KEY (job, what)
    );
    CREATE INDEX inputs_by_name ON inputs (name)
    """,
    # Job.crashes: how many processes ended suddenly while they ran this job.
    "ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 0",
]


def migrate(connection: sqlite3.Connection, file: Path) -> None:
    """Bring a database to the newest version, creating the tables if it is empty.

    Raises JobRejected if a newer studio wrote it, sqlite3.Error if it cannot be read or written.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise JobRejected(f"A newer Diffusion Studio wrote the library {file}; this version cannot read it.")
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT")
