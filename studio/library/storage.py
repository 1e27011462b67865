"""An open data folder: the SQLite file and the picture files beside it, which one process uses at a time."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.engine.requests import with_current_names
from studio.library.blobs import BlobStore
from studio.library.files import DiskReserve, translate_errors
from studio.library.schema import migrate

BUSY_SECONDS = 10.0  # how long to wait while another program, such as a backup, locks the SQLite file


class Storage:
    """A folder with library.sqlite, pictures/, traces/, inputs/, secret, key, reserve and lock. Thread-safe.

    Raises JobRejected if the folder cannot be used, or another process uses it.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()
        self._transaction_lock = threading.RLock()
        with translate_errors(f"The library in {self.folder} could not be opened"):
            self.folder.mkdir(parents=True, exist_ok=True)
            # The operating system releases this lock when the process ends, in whatever way.
            self._folder_lock = FileLock(self.folder / "lock", mode=0o600, thread_local=False, fallback_to_soft=False)
            try:
                self._folder_lock.acquire(timeout=0)
            except Timeout as problem:
                raise JobRejected(
                    f"Another studio uses the data folder {self.folder}. Choose another folder, or stop that studio."
                ) from problem
            try:
                self.reserve = DiskReserve(self.folder)
                self.reserve.free_space()
                self.blobs = BlobStore(self.folder)
                self._connection = self._connect(self.folder / "library.sqlite")
            except BaseException:
                self._folder_lock.release()
                raise
            try:
                traced = self.query("SELECT id FROM pictures WHERE trace_bytes > 0")
                self.blobs.remove_other_traces({row["id"] for row in traced})
                self.remove_unused_inputs()
            except BaseException:
                self.close()
                raise

    @staticmethod
    def _connect(file: Path) -> sqlite3.Connection:
        # One connection for all threads: statements take well under a millisecond.
        connection = sqlite3.connect(
            file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
            migrate(connection, file)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the database and let another process use the folder."""
        with self._transaction_lock:
            self._connection.close()
        self._folder_lock.release()

    # ---- rows ----

    def query(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Return all rows of a SELECT."""
        with self._transaction_lock:  # a reader never sees half a transaction
            return self._connection.execute(sql, values).fetchall()

    def query_value(self, sql: str, *values: object) -> Any:
        """Return the first column of a SELECT's first row, or None if there is no row."""
        rows = self.query(sql, *values)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all statements to the disk at the end, or roll all of them back if anything is raised."""
        with self._transaction_lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself after some errors
                    self._connection.execute("ROLLBACK")
                raise

    def find_pictures(self, where: str, *values: object) -> list[Picture]:
        """Return the pictures whose rows meet an SQL condition, which may end with ORDER BY and LIMIT."""
        sql = f"SELECT *, (SELECT id FROM jobs WHERE number = job) AS job_id FROM pictures WHERE {where}"
        return [
            Picture(
                id=row["id"],
                job_id=row["job_id"],
                index=row["place"],
                seed=row["seed"],
                path=str(self.blobs.picture_path(row["id"])),
                settings=with_current_names(json.loads(row["settings"])),
                width=row["width"],
                height=row["height"],
                created=row["created"],
                favourite=bool(row["favourite"]),
                has_trace=row["trace_bytes"] > 0,
            )
            for row in self.query(sql, *values)
        ]

    # ---- input pictures ----

    def read_inputs(self, job_number: int) -> dict[str, Image.Image]:
        """Return a job's input pictures by the request's fields.

        Raises OSError, ValueError or SyntaxError if one is missing or damaged.
        """
        rows = self.query("SELECT what, name FROM inputs WHERE job = ?", job_number)
        return {row["what"]: self.blobs.read_input(row["name"]) for row in rows}

    def remove_unused_inputs(self, names: Iterable[str] | None = None) -> None:
        """Remove the input files, of these names or all, that no job uses."""

        def find_used() -> set[str]:
            return {row["name"] for row in self.query("SELECT DISTINCT name FROM inputs")}

        self.blobs.remove_unused_inputs(find_used, names)


def insert_row(connection: sqlite3.Connection, table: str, **columns: object) -> int:
    """Insert one row and return its number."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    cursor = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))
    return cursor.lastrowid or 0
