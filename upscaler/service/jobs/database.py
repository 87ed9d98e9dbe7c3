"""The table of jobs, in SQLite: for any number of processes of one machine.

Nothing here waits for anything but the disk. Each method is one transaction, and is written when it
returns: `synchronous=FULL` waits for the disk. Write-ahead logging lets readers go on meanwhile; it
needs memory that processes share, so that they must be on one machine (sqlite.org/wal.html).
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from upscaler.errors import JobFailed, StoreUnavailable
from upscaler.service.jobs.store import BatchRecord, MemberRecord, Submission
from upscaler.service.webhooks import CLAIM_S, GIVE_UP_S, Message, Webhook, message_about

VERSION: Final = 1
"""Of the tables below; a file with others is refused."""
SUSPECT: Final = 3
BUSY_S: Final = 30.0
"""How long to wait for another process that writes."""
TABLES: Final = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order in which they were accepted
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    key TEXT,  -- the Idempotency-Key
    fingerprint TEXT NOT NULL,
    task TEXT NOT NULL,  -- JSON: what is to be done
    source TEXT NOT NULL,  -- the name of the file with the image
    room_bytes INTEGER NOT NULL,  -- of its files: at most, until it is completed
    created_s REAL NOT NULL,
    worker TEXT,  -- the process that has it, if any
    lease_s REAL,  -- until when, unless it says that it still lives
    interruptions INTEGER NOT NULL DEFAULT 0,  -- how many processes ended while they had it
    started_s REAL,
    done REAL NOT NULL DEFAULT 0,  -- of its rows, from 0 to 1
    finished_s REAL,
    result TEXT,  -- JSON: what became of it
    file TEXT,  -- the name of the file with the result
    failure TEXT,  -- JSON: the response
    fetched_s REAL,
    webhook TEXT,  -- JSON: where to tell that it is completed
    UNIQUE (owner, key)
) STRICT;
CREATE TABLE messages (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    url TEXT NOT NULL,
    body TEXT NOT NULL,
    created_s REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_s REAL NOT NULL
) STRICT;
CREATE INDEX due ON messages (due_s);
CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    created_s REAL NOT NULL,
    members TEXT NOT NULL  -- JSON: [name, the id of the job or null, the response or null]
) STRICT;
CREATE INDEX unfinished ON jobs (number) WHERE finished_s IS NULL;
CREATE INDEX taken ON jobs (worker) WHERE worker IS NOT NULL;
CREATE INDEX owners ON jobs (owner, number);
CREATE INDEX finished ON jobs (finished_s) WHERE finished_s IS NOT NULL;
"""


@dataclass(frozen=True)
class Row:
    """One job as it is kept; the fields are those of the table."""

    number: int
    id: str
    owner: str
    key: str | None
    fingerprint: str
    task: dict[str, Any]
    source: str
    room_bytes: int
    created_s: float
    worker: str | None
    lease_s: float | None
    interruptions: int
    started_s: float | None
    done: float
    finished_s: float | None
    result: dict[str, Any] | None
    file: str | None
    failure: JobFailed.Response | None
    fetched_s: float | None
    webhook: Webhook | None

    @property
    def files(self) -> list[str]:
        """The names of its files."""
        return [name for name in (self.source, self.file) if name]


class Database:
    """The jobs in one file. Raises StoreUnavailable if SQLite cannot do what is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Threads use each connection one after the other; readers wait for no writer, which may
        # wait for another process.
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        with self._told():
            self._connection = self._connected()
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._inode = path.stat().st_ino
        with self._transaction() as run:
            version = run("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in TABLES.split(";\n"):
                    run(statement)
                run(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise StoreUnavailable(
                    f"{path} was made by another version of this service: set UPSCALER_DATA to "
                    "another folder, or remove this one, with the jobs in it"
                )
        self._reader = self._connected()

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        return connection

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._read_lock:
            self._reader.close()
            self._connection.close()

    def add(
        self,
        job_id: str,
        submission: Submission,
        *,
        task: dict[str, Any],
        source: str,
        room_bytes: int,
        now_s: float,
    ) -> bool:
        """Add a job that waits; return False, and add none, if there is one with its key."""
        with self._transaction() as run:
            added = run(
                "INSERT INTO jobs"
                " (id, owner, key, fingerprint, webhook, task, source, room_bytes, created_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, key) DO NOTHING",
                (
                    job_id, submission.owner, submission.key, submission.fingerprint,
                    submission.webhook and json.dumps(asdict(submission.webhook)),
                    json.dumps(task), source, room_bytes, now_s,
                ),
            )  # fmt: skip
            return bool(added.rowcount)

    def find(self, job_id: str) -> Row | None:
        """The job with this id."""
        return self._first("SELECT * FROM jobs WHERE id = ?", job_id)

    def find_all(self, job_ids: list[str]) -> list[Row]:
        """The jobs with these ids, in any order."""
        query = "SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
        return [_row(each) for each in self._read(query, json.dumps(job_ids))]

    def find_key(self, owner: str, key: str) -> Row | None:
        """The job that was started with this key."""
        return self._first("SELECT * FROM jobs WHERE owner = ? AND key = ?", owner, key)

    def listed(self, owner: str, limit: int, before: float) -> list[Row]:
        """The jobs of an owner, the newest first: those with a lower number than `before`."""
        found = self._read(
            "SELECT * FROM jobs WHERE owner = ? AND number < ? ORDER BY number DESC LIMIT ?",
            owner, before, limit,
        )  # fmt: skip
        return [_row(each) for each in found]

    def ahead(self, number: int) -> int:
        """How many jobs before that one are not completed."""
        found = self._read(
            "SELECT count(*) FROM jobs WHERE number < ? AND finished_s IS NULL", number
        )
        return int(found[0][0])

    def held(self) -> tuple[int, int, int]:
        """How many jobs there are, their bytes, and the bytes of those that are not completed."""
        found = self._read(
            "SELECT count(*), total(room_bytes),"
            " total(room_bytes) FILTER (WHERE finished_s IS NULL) FROM jobs"
        )
        count, all_bytes, unfinished_bytes = found[0]
        return count, int(all_bytes), int(unfinished_bytes)

    def has_waiting(self) -> bool:
        """Whether a job waits for somebody to take it."""
        return bool(
            self._read("SELECT 1 FROM jobs WHERE worker IS NULL AND finished_s IS NULL LIMIT 1")
        )

    def claim(self, worker: str, lease_s: float) -> Row | None:
        """Give the job that has waited longest to `worker`, and return it.

        One that SUSPECT processes had when they ended comes after all others.
        """
        return self._one(
            "UPDATE jobs SET worker = ?, lease_s = ? WHERE number ="
            " (SELECT number FROM jobs WHERE worker IS NULL AND finished_s IS NULL"
            " ORDER BY interruptions >= ?, number LIMIT 1) RETURNING *",
            worker, lease_s, SUSPECT,
        )  # fmt: skip

    def beat(
        self, job_id: str, worker: str, lease_s: float, started_s: float | None, done: float
    ) -> bool:
        """Say that `worker` still has a job; return whether it has."""
        with self._transaction() as run:
            written = run(
                "UPDATE jobs SET lease_s = ?, started_s = ?, done = ?"
                " WHERE id = ? AND worker = ? AND finished_s IS NULL",
                (lease_s, started_s, done, job_id, worker),
            )
            return bool(written.rowcount)

    def give_back(self, job_id: str, worker: str) -> None:
        """Let a job wait again that `worker` will not go on with."""
        with self._transaction() as run:
            run(
                "UPDATE jobs SET worker = NULL, lease_s = NULL, started_s = NULL, done = 0"
                " WHERE id = ? AND worker = ? AND finished_s IS NULL",
                (job_id, worker),
            )

    def finish(
        self,
        job_id: str,
        worker: str,
        now_s: float,
        *,
        result: dict[str, Any] | None = None,
        file: str | None = None,
        file_bytes: int = 0,
        failure: JobFailed.Response | None = None,
    ) -> bool:
        """Write what became of a job; return False, and write nothing, if it is not `worker`'s."""
        with self._transaction() as run:
            written = run(
                "UPDATE jobs SET finished_s = ?, done = 1, worker = NULL, lease_s = NULL,"
                " result = ?, file = ?, failure = ?, room_bytes = ?"
                " WHERE id = ? AND worker = ? AND finished_s IS NULL RETURNING *",
                (
                    now_s, result and json.dumps(result), file, failure and json.dumps(failure),
                    file_bytes, job_id, worker,
                ),
            )  # fmt: skip
            rows = [_row(each) for each in written.fetchall()]
            for row in rows:
                _tell(run, row, now_s)
            return bool(rows)

    def workers(self) -> dict[str, float]:
        """The processes that have jobs, each with the time until which it has the last of them."""
        found = self._read(
            "SELECT worker, max(lease_s) FROM jobs WHERE worker IS NOT NULL GROUP BY worker"
        )
        return dict(map(tuple, found))

    def take_from(
        self, worker: str, most: int, failure: JobFailed.Response, now_s: float
    ) -> list[Row]:
        """Take away all that `worker` has, since it lives no longer, and return it.

        Jobs wait again, but for those that `most` processes had when they ended: those have failed.
        """
        with self._transaction() as run:
            taken = run(
                "UPDATE jobs SET worker = NULL, lease_s = NULL, started_s = NULL, done = 0,"
                " interruptions = interruptions + 1 WHERE worker = ? RETURNING *",
                (worker,),
            )
            rows = [_row(each) for each in taken.fetchall()]
            for row in rows:
                if row.interruptions >= most:
                    run(
                        "UPDATE jobs SET finished_s = ?, failure = ?, room_bytes = 0 WHERE id = ?",
                        (now_s, json.dumps(failure), row.id),
                    )
                    _tell(run, replace(row, failure=failure), now_s)
            return rows

    def fetched(self, when_s: dict[str, float]) -> None:
        """Note when clients were given the results of jobs."""
        with self._transaction() as run:
            for job_id, fetched_s in when_s.items():
                run("UPDATE jobs SET fetched_s = ? WHERE id = ?", (fetched_s, job_id))

    def remove(self, job_id: str, owner: str) -> Row | None:
        """Remove a job of that owner, and return it as it was."""
        return self._one("DELETE FROM jobs WHERE id = ? AND owner = ? RETURNING *", job_id, owner)

    def remove_finished(self, before_s: float) -> list[Row]:
        """Remove what was completed before, and return it."""
        return self._all("DELETE FROM jobs WHERE finished_s <= ? RETURNING *", before_s)

    def first_to_expire_s(self) -> float | None:
        """When the oldest of what is completed, and was not fetched, was completed."""
        found = self._read("SELECT min(finished_s) FROM jobs WHERE fetched_s IS NULL")
        first_s: float | None = found[0][0]
        return first_s

    def removable(self) -> list[tuple[str, int]]:
        """What may be removed for want of room: ids and bytes, the first to go first.

        Its result was fetched, and it has no key: else a repetition of its request will ask for it.
        """
        found = self._read(
            "SELECT id, room_bytes FROM jobs WHERE fetched_s IS NOT NULL AND key IS NULL"
            " ORDER BY fetched_s"
        )
        return list(map(tuple, found))

    def remove_all(self, job_ids: list[str]) -> list[Row]:
        """Remove jobs, and return them."""
        return self._all(
            "DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?)) RETURNING *",
            json.dumps(job_ids),
        )

    def files(self) -> tuple[set[str], set[str]]:
        """The names of all files of all jobs, and what those of unfinished jobs begin with."""
        found = self._read("SELECT source, file, finished_s IS NULL FROM jobs")
        names = {name for source, file, _ in found for name in (source, file) if name}
        return names, {Path(source).stem for source, _, unfinished in found if unfinished}

    def due(self, limit: int, owners: list[str], now_s: float) -> list[Message]:
        """Take messages for `owners` that are due, for CLAIM_S, the first that was due first.

        Those that nobody has sent in time, since nobody has their tokens any more, are removed.
        """
        with self._transaction() as run:
            run("DELETE FROM messages WHERE created_s < ?", (now_s - GIVE_UP_S - CLAIM_S,))
            found = run(
                "UPDATE messages SET due_s = ? WHERE id IN"
                " (SELECT id FROM messages WHERE due_s <= ?"
                " AND owner IN (SELECT value FROM json_each(?)) ORDER BY due_s LIMIT ?)"
                " RETURNING id, owner, url, body, created_s, attempts",
                (now_s + CLAIM_S, now_s, json.dumps(owners), limit),
            )
            return [Message(*each) for each in found.fetchall()]

    def has_due(self, owners: list[str], now_s: float) -> bool:
        """Whether a message for `owners` is due."""
        query = (
            "SELECT 1 FROM messages WHERE due_s <= ?"
            " AND owner IN (SELECT value FROM json_each(?)) LIMIT 1"
        )
        return bool(self._read(query, now_s, json.dumps(owners)))

    def settle(self, message_id: str, due_s: float | None) -> None:
        """Send a message again, then; or remove it."""
        with self._transaction() as run:
            if due_s is None:
                run("DELETE FROM messages WHERE id = ?", (message_id,))
            else:
                again = "UPDATE messages SET attempts = attempts + 1, due_s = ? WHERE id = ?"
                run(again, (due_s, message_id))

    def put_batch(self, record: BatchRecord, old_s: float) -> None:
        """Keep a batch, and remove those that are older than `old_s`."""
        members = json.dumps([(each.name, each.job_id, each.error) for each in record.members])
        with self._transaction() as run:
            run("DELETE FROM batches WHERE created_s < ?", (old_s,))
            values = record.id, record.owner, record.created_s, members
            run("INSERT INTO batches VALUES (?, ?, ?, ?)", values)

    def batch(self, batch_id: str) -> BatchRecord | None:
        """The batch with this id."""
        found = self._read("SELECT * FROM batches WHERE id = ?", batch_id)
        if not found:
            return None
        id_, owner, created_s, members = found[0]
        kept = [
            MemberRecord(name, job_id, error and JobFailed.Response(*error))
            for name, job_id, error in json.loads(members)
        ]
        return BatchRecord(id_, owner, created_s, kept)

    def remove_batch(self, batch_id: str) -> None:
        """Forget a batch."""
        with self._transaction() as run:
            run("DELETE FROM batches WHERE id = ?", (batch_id,))

    def _read(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """What a query finds; it waits for no writer, and no writer for it."""
        with self._read_lock, self._told():
            return self._reader.execute(statement, values).fetchall()

    def _first(self, query: str, *values: object) -> Row | None:
        found = self._read(query, *values)
        return _row(found[0]) if found else None

    def _one(self, statement: str, *values: object) -> Row | None:
        found = self._all(statement, *values)
        return found[0] if found else None

    def _all(self, statement: str, *values: object) -> list[Row]:
        with self._transaction() as run:
            return [_row(each) for each in run(statement, values).fetchall()]

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield what runs a statement, and commit at the end of the block."""
        run = self._connection.execute
        with self._lock, self._told():
            self._check_place()
            # At once a writer's: one that became it later could be refused although it waited.
            run("BEGIN IMMEDIATE")
            try:
                yield run
                run("COMMIT")
            except BaseException:
                # SQLite itself may have rolled back, as it does if the disk is full.
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise

    def _check_place(self) -> None:
        """Raise StoreUnavailable if the file was removed: SQLite would write on, and lose it."""
        if not (self._path.exists() and self._path.stat().st_ino == self._inode):
            raise StoreUnavailable(
                f"{self._path} was removed or replaced: put it back, or start the service again"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise SQLite's errors as StoreUnavailable."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error


def _tell(run: Any, row: Row, now_s: float) -> None:  # noqa: ANN401  what runs a statement
    """Keep the message that a job is completed, if somebody wants it."""
    if row.webhook:
        message = message_about(row.id, row.owner, row.webhook, row.failure, now_s)
        run(
            "INSERT INTO messages (id, owner, url, body, created_s, due_s)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (message.id, message.owner, message.url, message.body, now_s, now_s),
        )


def _row(found: sqlite3.Row) -> Row:
    values: dict[str, Any] = dict(found)
    for name in ("task", "result", "failure", "webhook"):
        if values[name] is not None:
            values[name] = json.loads(values[name])
    if values["failure"] is not None:
        values["failure"] = JobFailed.Response(*values["failure"])
    if values["webhook"] is not None:
        values["webhook"] = Webhook(**values["webhook"])
    return Row(**values)
