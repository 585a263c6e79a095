"""zaaz.wallet.v1.StatementService: what happened to wallets, and proof of it."""

from typing import Any, NamedTuple

from zaaz.wallet.v1 import statement_service_pb2 as pb
from zaaz.wallet.v1.statement_service_pb2_grpc import StatementServiceServicer

from server.kernel.clock import Clock
from server.kernel.errors import field_invalid
from server.kernel.paging import PageTokens
from server.kernel.timestamps import storable_time, timestamp
from server.ledger.chain import canonical
from server.ledger.messages import transaction_message
from server.ledger.model import Entry, Wallet
from server.ledger.statements import Place, StatementReader
from server.ledger.trial_balance import Account, TrialBalance
from server.wallet.signing import ALGORITHM, Head, Signer

DEFAULT_PAGE_SIZE = 200
MAX_PAGE_SIZE = 1_000
MAX_PAGE_BYTES = 1_500_000
"""Of canonical forms; with the transactions beside them a page stays under 4 MiB."""


class _Statement(NamedTuple):
    """Which entries a statement has, settled by its first page: those in (opening, through].

    `after` is the last that has been shown, `signed_ms` the moment of the first page.
    """

    start_ms: int
    end_ms: int
    opening: int
    through: int
    signed_ms: int
    after: int


class StatementServicer(StatementServiceServicer):
    """Only reads."""

    def __init__(
        self,
        reader: StatementReader,
        trial_balance: TrialBalance,
        signer: Signer,
        page_tokens: PageTokens,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._trial_balance = trial_balance
        self._signer = signer
        self._page_tokens = page_tokens
        self._clock = clock

    async def GetBalanceAt(
        self, request: pb.GetBalanceAtRequest, context: Any
    ) -> pb.GetBalanceAtResponse:
        """The balances as the wallet was shown at the time."""
        time_ms = storable_time("time", request.time)
        if time_ms > self._clock():
            raise field_invalid("time", "must not be in the future")
        found = await self._reader.balance_at(request.user_id, time_ms)
        return pb.GetBalanceAtResponse(
            credits_micros=found.credits_micros,
            held_micros=found.held_micros,
            debt_micros=found.debt_micros,
            available_micros=found.credits_micros - found.held_micros,
            sequence=found.sequence,
            time=timestamp(time_ms),
        )

    async def GetStatement(
        self, request: pb.GetStatementRequest, context: Any
    ) -> pb.GetStatementResponse:
        """One page of the period's entries; its balances and its head are those of all pages."""
        wallet = await self._reader.wallet(request.user_id)
        query = _query(request)
        token = self._page_tokens.read(query, request.page_token)
        if token is None:
            statement = await self._begin(request, wallet)
        else:
            statement = _Statement(*(int(number) for number in token))
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        entries = await self._reader.lines(
            request.user_id, statement.after, statement.through, size
        )
        lines = _lines(entries)
        after = lines[-1].transaction.sequence if lines else statement.through
        opening, closing = await self._reader.places(wallet, (statement.opening, statement.through))
        more = after < statement.through
        return pb.GetStatementResponse(
            user_id=request.user_id,
            user_wallet_id=str(wallet.profile.id),
            start_time=timestamp(statement.start_ms),
            end_time=timestamp(statement.end_ms),
            opening_balance_micros=opening.balance_micros,
            closing_balance_micros=closing.balance_micros,
            opening_chain=opening.chain.hex(),
            opening_sequence=opening.sequence,
            lines=lines,
            next_page_token=self._page_tokens.next(
                query, [*statement._replace(after=after)] if more else None
            ),
            head=self._signed(wallet, closing, statement.signed_ms),
        )

    async def GetTrialBalance(
        self, request: pb.GetTrialBalanceRequest, context: Any
    ) -> pb.GetTrialBalanceResponse:
        """Debits and credits of every account over the period."""
        start_ms, end_ms = _period(request, 0, self._clock())
        accounts = await self._trial_balance.over(start_ms, end_ms)
        return pb.GetTrialBalanceResponse(
            accounts=[_account_message(account) for account in accounts],
            total_micros=sum(account.net_micros for account in accounts),
            # Each is on two accounts.
            transactions=sum(account.transactions for account in accounts) // 2,
            start_time=timestamp(start_ms),
            end_time=timestamp(end_ms),
        )

    async def ListSigningKeys(
        self, request: pb.ListSigningKeysRequest, context: Any
    ) -> pb.ListSigningKeysResponse:
        """The one key that there is."""
        self._page_tokens.read("ListSigningKeys", request.page_token)
        signer = self._signer
        key = pb.SigningKey(key_id=signer.key_id, algorithm=ALGORITHM, public_key=signer.public_key)
        return pb.ListSigningKeysResponse(signing_keys=[key])

    async def _begin(self, request: pb.GetStatementRequest, wallet: Wallet) -> _Statement:
        now_ms = self._clock()
        start_ms, end_ms = _period(request, wallet.profile.created_ms, now_ms)
        opening = 0
        if request.HasField("start_time"):
            opening = await self._reader.count_before(wallet, start_ms)
        through = wallet.sequence
        if end_ms <= now_ms:
            through = max(opening, await self._reader.count_before(wallet, end_ms))
        return _Statement(start_ms, end_ms, opening, through, now_ms, opening)

    def _signed(self, wallet: Wallet, place: Place, signed_ms: int) -> pb.SignedHead:
        head = Head(
            str(wallet.profile.id), place.sequence, place.chain, place.balance_micros, signed_ms
        )
        return pb.SignedHead(
            user_wallet_id=head.wallet_id,
            sequence=head.sequence,
            chain=head.chain.hex(),
            balance_after_micros=head.balance_after_micros,
            signed_time=timestamp(signed_ms),
            key_id=self._signer.key_id,
            signature=self._signer.sign(head),
        )


def _query(request: pb.GetStatementRequest) -> str:
    """What a page token is bound to: another user or period makes it another statement."""
    times = (request.start_time, request.end_time)
    return "\0".join(("GetStatement", request.user_id, *(f"{t.seconds}.{t.nanos}" for t in times)))


def _period(
    request: pb.GetStatementRequest | pb.GetTrialBalanceRequest, earliest_ms: int, now_ms: int
) -> tuple[int, int]:
    """The period asked for, cut off after now: its end is the first moment that is not in it."""
    after_now = now_ms + 1
    end_ms = after_now
    if request.HasField("end_time"):
        end_ms = min(storable_time("end_time", request.end_time), after_now)
    if not request.HasField("start_time"):
        return min(earliest_ms, end_ms), end_ms
    start_ms = storable_time("start_time", request.start_time)
    if start_ms > end_ms:
        raise field_invalid("start_time", "must not be after end_time, or after now")
    return start_ms, end_ms


def _lines(entries: list[Entry]) -> list[pb.StatementLine]:
    """As many as a page may carry, at least one."""
    lines: list[pb.StatementLine] = []
    taken_bytes = 0
    for entry in entries:
        form = canonical(entry)
        taken_bytes += len(form)
        if lines and taken_bytes > MAX_PAGE_BYTES:
            break
        line = pb.StatementLine(canonical=form.decode())
        transaction_message(entry, line.transaction)
        lines.append(line)
    return lines


def _account_message(account: Account) -> pb.AccountBalance:
    return pb.AccountBalance(
        account=account.name,
        debit_micros=account.debit_micros,
        credit_micros=account.credit_micros,
        net_micros=account.net_micros,
        transactions=account.transactions,
    )
