"""What an operator sees of the ledger, as Prometheus metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

COMMIT_BUCKETS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class LedgerMetrics:
    """The committer's metrics, in the server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.commit_seconds = Histogram(
            "zaaz_ledger_commit_seconds",
            "How long transactions took that were committed.",
            registry=registry,
            buckets=COMMIT_BUCKETS_SECONDS,
        )
        self.entries = Counter(
            "zaaz_ledger_entries",
            "Entries committed, those of expiries included.",
            registry=registry,
        )
        self.lost = Counter(
            "zaaz_ledger_transactions_lost",
            "Transactions lost, by what to: conflict and duplicate are normal, unavailable is not.",
            ["kind"],
            registry=registry,
        )
        self._queued = Gauge(
            "zaaz_ledger_queued_entries", "Entries that wait for the committer.", registry=registry
        )

    def watch_queue(self, entries: Callable[[], int]) -> None:
        """Reads the queue's length whenever it is asked for."""
        self._queued.set_function(entries)
