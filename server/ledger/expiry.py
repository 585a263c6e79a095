"""What happens to a wallet by time alone: grants, holds and packages end, each exactly once.

Applied before every operation and computed likewise by every read, so that
nothing depends on a worker having run.
"""

from server.kernel.ids import derived_id
from server.kernel.principal import HOUSE_CLIENT
from server.ledger.grants import next_due, take_from
from server.ledger.model import Cause, DecreaseReason, Entry, Movement, Wallet
from server.ledger.periods import run_out
from server.ledger.posting import Applied, HoldChange, Posting, post
from server.ledger.settlement import expiry


def expire(wallet: Wallet, now_ms: int) -> Applied:
    """Ends all that is due, in the order of time, an entry each."""
    if wallet.next_expiry_ms > now_ms:
        return Applied(wallet)
    entries: list[Entry] = []
    changes: list[HoldChange] = []
    while wallet.next_expiry_ms <= now_ms:
        moment = wallet.next_expiry_ms
        for hold in wallet.holds:
            if hold.expires_ms <= moment:
                ending = expiry(wallet, hold, HOUSE_CLIENT)
                wallet, entry = post(wallet, ending.posting, now_ms, moment)
                entries.append(entry)
                changes.append(ending.change)
        wallet, voided = void(wallet, moment, now_ms)
        entries.extend(voided)
        wallet, passed = run_out(wallet, moment, now_ms)
        entries.extend(passed)
        due = next_due(wallet.grants, wallet.holds, wallet.profile, moment)
        wallet = wallet._replace(next_expiry_ms=due)
    return Applied(wallet, tuple(entries), None, tuple(changes))


def void(wallet: Wallet, moment_ms: int, now_ms: int) -> tuple[Wallet, tuple[Entry, ...]]:
    """Voids what is left of grants that are over by a moment, but for what is held."""
    overdue = [grant for grant in wallet.grants if grant.expires_ms <= moment_ms]
    excess = sum(grant.remaining_micros for grant in overdue) - wallet.held_micros
    entries: list[Entry] = []
    for grant in overdue:
        taken = min(grant.remaining_micros, excess)
        if taken <= 0:
            break
        excess -= taken
        posting = Posting(
            # No client_id begins so, and a usage's id begins with one: the two never meet.
            id=derived_id("#expiry", str(grant.id), str(wallet.sequence + 1)),
            signed_micros=-taken,
            movements=(Movement(grant.id, -taken),),
            grants=take_from(wallet.grants, grant.id, taken),
            decrease_reason=DecreaseReason.EXPIRY,
            counter_account="breakage:expiry",
            cause=Cause(HOUSE_CLIENT, occurred_ms=moment_ms),
        )
        wallet, entry = post(wallet, posting, now_ms, moment_ms)
        entries.append(entry)
    return wallet, tuple(entries)
