"""The ledger's refusals that more than one place gives."""

from bson import ObjectId

from server.kernel.errors import DomainError, Reason
from server.ledger.model import Entry


def wallet_not_found(user_id: str) -> DomainError:
    """WALLET_NOT_FOUND."""
    return DomainError(
        Reason.WALLET_NOT_FOUND, f"user {user_id} has no wallet", {"user_id": user_id}
    )


def transaction_not_found(entry_id: ObjectId) -> DomainError:
    """TRANSACTION_NOT_FOUND."""
    return DomainError(
        Reason.TRANSACTION_NOT_FOUND, f"no transaction has the id {entry_id}", {"id": entry_id}
    )


def insufficient(available_micros: int, required_micros: int) -> DomainError:
    """INSUFFICIENT_CREDITS with the shortfall."""
    available = max(0, available_micros)
    return DomainError(
        Reason.INSUFFICIENT_CREDITS,
        f"{required_micros} micro-credits are needed and {available} available",
        {
            "available_micros": available,
            "required_micros": required_micros,
            "shortfall_micros": required_micros - available,
        },
    )


def too_many_grants(limit: int) -> DomainError:
    """TOO_MANY_GRANTS."""
    return DomainError(
        Reason.TOO_MANY_GRANTS,
        f"a wallet holds at most {limit} grants at a time",
        {"limit": limit},
    )


def too_many_holds(limit: int) -> DomainError:
    """TOO_MANY_HOLDS."""
    return DomainError(
        Reason.TOO_MANY_HOLDS,
        f"a wallet has at most {limit} active holds at a time",
        {"limit": limit},
    )


def hold_not_found(hold_id: object) -> DomainError:
    """HOLD_NOT_FOUND."""
    return DomainError(Reason.HOLD_NOT_FOUND, f"no hold has the id {hold_id}", {"hold_id": hold_id})


def hold_ended(hold_id: object, state: str = "ended") -> DomainError:
    """HOLD_ENDED."""
    return DomainError(
        Reason.HOLD_ENDED,
        f"hold {hold_id} was captured, released or expired before",
        {"hold_id": hold_id, "state": state},
    )


def usage_key_reused(usage_key: str) -> DomainError:
    """USAGE_KEY_REUSED."""
    return DomainError(
        Reason.USAGE_KEY_REUSED,
        "this usage_key was used before with another payload",
        {"usage_key": usage_key},
    )


def payment_already_used(earlier: Entry) -> DomainError:
    """PAYMENT_ALREADY_USED."""
    payment_id = earlier.cause.payment_transaction_id
    return DomainError(
        Reason.PAYMENT_ALREADY_USED,
        f"the payment {payment_id} has brought a package before",
        {"payment_transaction_id": payment_id, "credits_transaction_id": earlier.id},
    )


def reused(request_key: str) -> DomainError:
    """REQUEST_ID_REUSED."""
    request_id = request_key.partition("\0")[2]
    return DomainError(
        Reason.REQUEST_ID_REUSED,
        "this request_id was used before with another payload",
        {"request_id": request_id},
    )


def fenced(writer_key: str) -> DomainError:
    """WRITER_FENCED."""
    writer_id = writer_key.partition("\0")[2]
    return DomainError(
        Reason.WRITER_FENCED,
        "another stream has opened this writer_id since",
        {"writer_id": writer_id},
    )


def contention(attempts: int) -> DomainError:
    """CONTENTION."""
    return DomainError(
        Reason.CONTENTION,
        "others kept changing the same wallet",
        {"attempts": attempts},
        retry_delay_seconds=0.1,
    )


def unavailable() -> DomainError:
    """DEPENDENCY_UNAVAILABLE."""
    return DomainError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "the database cannot be reached",
        {"dependency": "mongodb"},
        retry_delay_seconds=1.0,
    )
