"""What can go wrong with the database, and the one place that translates the driver's errors.

    DatabaseUnavailable    it cannot be reached, or is not ready to serve
    TransactionLost        nothing of the transaction is stored ("unknown": perhaps it is)
    IndexConflict          the database holds an index or rows other than declared
    EmbeddedMongodFailed   the embedded mongod cannot start; the message says what to do

Every other driver error is a defect and passes through unchanged.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError, WriteError

DUPLICATE_KEY = 11000
WRITE_CONFLICT = 112
TOO_LARGE_FOR_CACHE = 388
_NOT_SERVING = frozenset(
    # Shutting down, stepping down, not primary, or a single node before its election.
    (91, 189, 10107, 11600, 11602, 13435, 13436)
)
_TRANSIENT = "TransientTransactionError"
_COMMIT_UNKNOWN = "UnknownTransactionCommitResult"

LostKind = Literal["duplicate", "conflict", "unknown"]


class TransactionLost(Exception):  # noqa: N818 - it names what happened; losing one is normal
    """The transaction did not commit; its block must be run again, or not.

    `kind` is "duplicate" (a unique key exists: 11000), "conflict" (another
    transaction was first: 112 or a transient error; also how a key shows that
    another process has just committed, and a batch that is too large for the
    cache), or "unknown" (the connection went away during the commit and stayed
    away: it may be stored).
    """

    def __init__(self, kind: LostKind, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind: LostKind = kind


class DatabaseUnavailable(Exception):  # noqa: N818 - it is a state of the world
    """The database cannot be reached. Nothing of the operation's transaction is stored."""


class IndexConflict(Exception):  # noqa: N818 - it names what was found
    """A declared index cannot be; the message says what stands in its way, and the way out."""


class EmbeddedMongodFailed(Exception):  # noqa: N818 - it names what happened
    """The embedded mongod cannot be started; the message says why and what helps."""


def is_unavailable(error: BaseException) -> bool:
    """Whether `error`, ours or the driver's, means that the database is not there just now."""
    if isinstance(error, OperationFailure):
        return error.code in _NOT_SERVING
    return isinstance(error, DatabaseUnavailable | ConnectionFailure)


@contextmanager
def reachable() -> Iterator[None]:
    """For work outside transactions: a database that is not there is DatabaseUnavailable."""
    try:
        yield
    except PyMongoError as error:
        if is_unavailable(error):
            raise DatabaseUnavailable(str(error)) from error
        raise


@contextmanager
def lossy() -> Iterator[None]:
    """For work inside a transaction: as `reachable`, and a lost one is TransactionLost."""
    try:
        yield
    except PyMongoError as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error


def translate(error: PyMongoError) -> Exception:
    """`error` of a transaction as one of this module's, or itself."""
    # Losing the connection is labelled transient too; that is not a conflict, so it is first.
    if is_unavailable(error):
        return DatabaseUnavailable(str(error))
    kind = _lost_kind(error)
    return error if kind is None else TransactionLost(kind, str(error))


def raise_write_errors(answer: Mapping[str, Any]) -> None:
    """Raise the failure that a write command's `ok: 1` answer may still carry."""
    failures = answer.get("writeErrors")
    if failures:
        first = failures[0]
        raise WriteError(first.get("errmsg", "write refused"), first.get("code"), first)


def commit_unknown(error: PyMongoError) -> bool:
    """Whether a failed commit may nevertheless have happened, so that asking again is right."""
    return error.has_error_label(_COMMIT_UNKNOWN)


def _lost_kind(error: PyMongoError) -> LostKind | None:
    if not isinstance(error, OperationFailure):
        return None
    if error.code == DUPLICATE_KEY:
        return "duplicate"
    # The cache is full of this transaction and its neighbours: smaller or later, it may pass.
    if error.code in (WRITE_CONFLICT, TOO_LARGE_FOR_CACHE) or error.has_error_label(_TRANSIENT):
        return "conflict"
    return None
