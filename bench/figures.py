"""The figures: what is compared with what, and what we aim for."""

from collections import ChainMap
from dataclasses import dataclass
from typing import Any

from bench import consume, entitled, gateway, growth, holds, offers, resources
from bench.inserts import usage
from bench.machine import peak_mebibytes
from bench.pairs import summarize, take_pairs
from bench.processes import recorded
from bench.setting import NO_SIZE, Open, Plan, Size, announce, bench_of, tell


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio that we watch. `what` may name `size`, which depends on the scale."""

    name: str
    what: str
    aim: float
    open: Open
    size: Size = NO_SIZE


_INSERTS = "usage events through the stream over bare insert_many of their documents"
FIGURES = (
    Figure("usage_40", f"{_INSERTS}, 40 wallets", 0.8, usage(40)),
    Figure("usage_1000", f"{_INSERTS}, 1,000 wallets", 0.5, usage(1_000)),
    Figure("usage_50000", f"{_INSERTS}, 50,000 wallets", 0.3, usage(50_000)),
    Figure(
        "growth",
        "usage events after {size:,} entries over after none",
        0.75,
        growth.growth,
        growth.ENTRIES,
    ),
    Figure(
        "consume_spread", "ConsumeCredits on 1,000 wallets over a bare echo", 0.6, consume.spread
    ),
    Figure("consume_hot", "ConsumeCredits on one wallet over 1,000 wallets", 0.8, consume.hot),
    Figure("check_access", "CheckAccess for 1,000 wallets over a bare echo", 0.7, holds.check),
    Figure(
        "check_access_entitled",
        "CheckAccess with 50 packages and 200 features over a bare echo",
        0.6,
        entitled.entitled,
    ),
    Figure(
        "holds", "pairs of AuthorizeUsage and CaptureHold over ConsumeCredits", 0.4, holds.holds
    ),
    Figure(
        "logs_deep",
        "page {size:,} of so many with 100 interactions each over the first",
        0.8,
        resources.deep_page,
        resources.DEEP_PAGE,
    ),
    Figure("logs_list", "ListFeatureUsageLogs of 100 rows over a bare find", 0.2, resources.pages),
    Figure("logs_get", "GetFeatureUsageLog over a bare find", 0.3, resources.gets),
    Figure(
        "list_offers",
        "ListOffers, 50 packages x 4 plans x 200 features, over an aggregate",
        3.0,
        offers.offers,
    ),
    Figure("rest_get", "GET through the gateway over bare Starlette JSON", 0.4, gateway.rest_get),
)


async def take_figure(figure: Figure, plan: Plan) -> dict[str, Any]:
    """Starts what the figure needs, takes it, and returns what is to be said of it."""
    what = announce(figure.name, figure.what, figure.size, plan)
    async with bench_of(plan) as bench, figure.open(bench) as sides:
        # A view: a side may start processes for each of its runs.
        pids = ChainMap(sides.pids, dict(bench.served.pids))
        async with recorded(pids["server"], plan.recording):
            pairs = await take_pairs(sides, plan.pairs, pids, tell)
        peaks = {role: peak_mebibytes(pid) for role, pid in pids.items()}
        besides = await sides.besides()
    return {
        "name": figure.name,
        "what": what,
        "scale": plan.told,
        "aim": figure.aim,
        **summarize(pairs),
        "wallets_seconds": bench.wallets_seconds,
        "peak_rss_mib": peaks,
        **besides,
    }
