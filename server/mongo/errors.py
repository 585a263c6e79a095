"""What can go wrong with the database, and the one place that translates the driver's errors.

    DatabaseUnavailable    it cannot be reached, or is not ready to serve
    TransactionLost        nothing of the transaction is stored ("unknown": perhaps it is)
    IndexConflict          the database holds an index other than the one declared
    EmbeddedMongodFailed   the embedded mongod cannot start; the message says what to do

Every other driver error is a defect and passes through unchanged.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError, WriteError

DUPLICATE_KEY = 11000
WRITE_CONFLICT = 112
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
    another process has just committed), or "unknown" (the connection went away
    during the commit and stayed away: it may be stored).
    """

    def __init__(self, kind: LostKind, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind: LostKind = kind


class DatabaseUnavailable(Exception):  # noqa: N818 - it is a state of the world
    """The database cannot be reached. Nothing of the operation's transaction is stored."""


class IndexConflict(Exception):  # noqa: N818 - it names what was found
    """An index exists with other options than declared; the message says which and the way out."""


class EmbeddedMongodFailed(Exception):  # noqa: N818 - it names what happened
    """The embedded mongod cannot be started; the message says why and what helps."""


def translate(error: PyMongoError) -> Exception:
    """`error` as one of this module's, or itself."""
    # Connection loss in a transaction is labelled transient too: so it is asked first.
    if isinstance(error, ConnectionFailure):
        return DatabaseUnavailable(str(error))
    if isinstance(error, OperationFailure):
        if error.code in _NOT_SERVING:
            return DatabaseUnavailable(str(error))
        if error.code == DUPLICATE_KEY:
            return TransactionLost("duplicate", str(error))
        if error.code == WRITE_CONFLICT or error.has_error_label(_TRANSIENT):
            return TransactionLost("conflict", str(error))
    return error


def write_failure(answer: Mapping[str, Any]) -> Exception | None:
    """The failure that a write command's `ok: 1` answer may still carry in `writeErrors`."""
    failures = answer.get("writeErrors")
    if not failures:
        return None
    first = failures[0]
    return translate(WriteError(first.get("errmsg", "write refused"), first.get("code"), first))


def commit_unknown(error: PyMongoError) -> bool:
    """Whether a failed commit may nevertheless have happened, so that asking again is right."""
    return error.has_error_label(_COMMIT_UNKNOWN)
