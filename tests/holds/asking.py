"""Questions of who may use what, and what a wallet has to be for an answer."""

from typing import Any

from bson import ObjectId
from zaaz.common.v1.error_reason_pb2 import ErrorReason
from zaaz.credits.v1 import credits_process_service_pb2 as pb

from tests.conftest import MongoClient
from tests.holds.conftest import Holder
from tests.serving import MODEL


def reasons(denials: Any) -> list[str]:
    """Sorted, by name."""
    names = (ErrorReason.Name(denial.reason) for denial in denials)
    return sorted(name.removeprefix("ERROR_REASON_") for name in names)


async def check(holder: Holder, user_id: str, **fields: Any) -> pb.CheckAccessResponse:
    request = pb.CheckAccessRequest(user_id=user_id, **fields)
    answer: pb.CheckAccessResponse = await holder.served.process.CheckAccess(request)
    return answer


async def denied(holder: Holder, user_id: str, **fields: Any) -> dict[str, pb.Denial]:
    """The reasons against a use, which both RPCs give in the same words."""
    authorized = await holder.authorize(user_id, **fields)
    values = {"ai_model": MODEL, "max_input_tokens": 1_000, "max_output_tokens": 500, **fields}
    checked = await check(holder, user_id, **values)
    assert (authorized.allowed, authorized.HasField("hold")) == (checked.allowed, checked.allowed)
    assert reasons(authorized.denials) == reasons(checked.denials)
    assert list(authorized.denials) == list(checked.denials)
    assert authorized.estimate.credits_micros == checked.estimate.credits_micros
    assert bool(authorized.denials) != authorized.allowed
    return {
        ErrorReason.Name(one.reason).removeprefix("ERROR_REASON_"): one
        for one in authorized.denials
    }


async def set_wallet(
    client: MongoClient, user_id: str, database: str = "test_served", **fields: Any
) -> None:
    """Writes what no RPC does: the wallet as it will be for who has bought a plan."""
    result = await client[database]["user_wallets"].update_one(
        {"user_id": ObjectId(user_id)}, {"$set": fields, "$inc": {"version": 1}}
    )
    assert result.modified_count == 1
