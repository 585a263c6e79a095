"""Who may let a wallet pass whose subscription has expired."""

from typing import Final, Protocol

from server.kernel.errors import DomainError, Reason
from server.kernel.principal import current_principal

BYPASS: Final = "wallet.bypass"
"""The scope that it takes."""


class MayBypass(Protocol):
    """A request that can ask for it."""

    bypass_expiry: bool


def bypasses_expiry(request: MayBypass) -> bool:
    """Whether the request asks for it. SCOPE_MISSING where its caller may not."""
    if not request.bypass_expiry:
        return False
    principal = current_principal()
    if BYPASS not in principal.scopes and not principal.is_admin:
        message = f"the API key lacks the scope that bypass_expiry takes: {BYPASS}"
        raise DomainError(Reason.SCOPE_MISSING, message, {"scopes": BYPASS})
    return True
