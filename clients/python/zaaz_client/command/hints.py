"""What somebody at a terminal can do about an error, by the reason that the server gives."""

from collections.abc import Mapping
from typing import Final

from zaaz_client.errors import ZaazError

HINTS: Final[Mapping[str, str]] = {
    "WALLET_NOT_FOUND": (
        "`zaaz wallet create {user_id}` makes it; `zaaz wallet list` shows those that there are."
    ),
    "API_KEY_NOT_FOUND": "`zaaz keys list --revoked` shows the ids of all keys.",
    "USAGE_NOT_FOUND": (
        "A usage goes by the KEY that it was sent with, its --user, and the --client that sent it."
        "\nWhat could not be billed is in `zaaz usage rejected list`."
    ),
    "REJECTED_USAGE_NOT_FOUND": (
        "`zaaz usage rejected list` shows the ids of what this key's client has."
    ),
    "PRICE_NOT_FOUND": (
        "`zaaz models list --search PROVIDER/` shows the models that have prices,"
        " `zaaz models import` brings the published ones."
    ),
    "AI_MODEL_INACTIVE": "`zaaz models list --search PROVIDER/` shows the models that there are.",
    "FEATURE_ENDPOINT_NOT_FOUND": "`zaaz catalog export` shows the endpoints that there are.",
    "REQUEST_ID_REUSED": (
        "A request id belongs to one request: repeat that as it was, or leave --request-id out."
    ),
    "CONTENTION": "Others kept changing the same: repeat the command.",
    "INTERNAL": "The server's log says more, with the error_id {error_id}.",
}


class _Known(dict[str, str]):
    """What an error does not say is named instead: USER_ID."""

    def __missing__(self, key: str) -> str:
        return key.upper()


def with_hint(error: ZaazError) -> str:
    """The error, and on a line of its own what can be done about it."""
    hint = HINTS.get(error.reason)
    if hint is None:
        return str(error)
    return f"{error}\n{hint.format_map(_Known(error.metadata))}"
