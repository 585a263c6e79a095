"""Entries as the credits services show them."""

from zaaz.ledger.v1.credits_transaction_pb2 import CreditsTransaction

from server.credits.pricing import Pricing
from server.ledger.messages import transaction_message
from server.ledger.model import Entry


def credits_transaction(
    entry: Entry, pricing: Pricing, into: CreditsTransaction | None = None
) -> CreditsTransaction:
    """The entry; that of a usage names its endpoint's row.

    A usage is stored with its endpoint's value alone: which row had it then is known to
    the catalog, and need not be said again in every one of so many entries.
    """
    message, usage = transaction_message(entry, into), entry.usage
    if usage is not None and usage.feature_endpoint:
        source = pricing.endpoint_id_at(usage.feature_endpoint, usage.occurred_ms)
        message.decrease_source = "" if source is None else str(source)
    return message
