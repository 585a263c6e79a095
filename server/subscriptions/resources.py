"""What became of users' packages, for the resource engine: rows that are listed and read."""

from typing import Final

from zaaz.subscriptions.v1.package_transaction_pb2 import PackageTransaction

from server.ledger.store import PACKAGES
from server.resources.model import Resource

PACKAGE_TRANSACTIONS: Final = Resource(
    PackageTransaction,
    PACKAGES,
    filterable=("user_id", "package_id", "plan_id", "kind", "created_time"),
    sortable=("created_time", "sequence"),
    read_only=True,
)
