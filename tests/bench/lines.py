"""What figures and measures say when they are taken, made up."""

from typing import Any

CPU = {"server": 44.0, "mongod": 36.0, "client": 0.2, "others": 5.0, "idle": 15.0}
BASELINE_CPU = {"server": 0.4, "mongod": 21.0, "client": 9.0, "others": 5.0, "idle": 15.0}


def a_figure(name: str = "usage_40", **changes: Any) -> dict[str, Any]:
    cost = {"p50_ms": 12.34, "p99_ms": 56.78}
    return {
        "name": name,
        "what": "events over inserts",
        "scale": "quick",
        "aim": 0.8,
        "ratio": 0.625,
        "spread": [0.61, 0.64],
        "runs": 3,
        "ours_per_second": 17_243,
        "baseline_per_second": 28_470,
        "ours": {**cost, "cpu_micros": CPU},
        "baseline": {**cost, "cpu_micros": BASELINE_CPU},
        "wallets_seconds": 1.5,
        "peak_rss_mib": {"server": 176.4, "mongod": 1_048.2},
        **changes,
    }


def a_measure(name: str = "memory", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "what": "memory while events are streamed",
        "scale": "quick",
        "aim": "flat",
        "value": 0.25,
        "unit": "MiB per 100,000 events",
        "cpu_seconds": {"server": 31.25, "mongod": 20.0, "others": 1.0, "idle": 9.0},
        "peak_rss_mib": {"server": 176.4, "mongod": 1_048.2},
        **changes,
    }
