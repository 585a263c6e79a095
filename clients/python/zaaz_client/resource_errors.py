"""Errors of the catalog, of rows that are edited and of REST: see the tree in `errors`."""

from zaaz_client.errors import AccessRefused, Conflict, InvalidRequest, NotFound, UsageRefused


class FilterInvalid(InvalidRequest):
    """The filter cannot be read; metadata has the `position`."""

    reasons = ("FILTER_INVALID",)


class OrderByInvalid(InvalidRequest):
    """The order cannot be read, or names what rows are not sorted by."""

    reasons = ("ORDER_BY_INVALID",)


class ExpandInvalid(InvalidRequest):
    """There is no such reference to fill in."""

    reasons = ("EXPAND_INVALID",)


class FieldImmutable(InvalidRequest):
    """The field cannot be changed once the row is made."""

    reasons = ("FIELD_IMMUTABLE",)


class ResourceNotFound(NotFound):
    """There is no such row."""

    reasons = ("RESOURCE_NOT_FOUND",)


class ReferenceNotFound(NotFound):
    """A row that is referred to does not exist, or is deleted."""

    reasons = ("REFERENCE_NOT_FOUND",)


class AlreadyExists(Conflict):
    """Another live row has this; metadata has the `field`."""

    reasons = ("ALREADY_EXISTS",)


class StillReferenced(Conflict):
    """Others refer to the row; metadata has some of the `references`."""

    reasons = ("STILL_REFERENCED",)


class Cycle(Conflict):
    """A row would be its own ancestor."""

    reasons = ("CYCLE",)


class ActiveRequired(Conflict):
    """One row has to be active: activate another first."""

    reasons = ("ACTIVE_REQUIRED",)


class FeatureEndpointInactive(UsageRefused):
    """The endpoint is switched off."""

    reasons = ("FEATURE_ENDPOINT_INACTIVE",)


class FeatureInactive(UsageRefused):
    """The endpoint's feature, or one above it, is switched off."""

    reasons = ("FEATURE_INACTIVE",)


class AiModelInactive(UsageRefused):
    """The model is switched off."""

    reasons = ("AI_MODEL_INACTIVE",)


class WordLimitExceeded(UsageRefused):
    """More words than the user's tier may have; metadata has the `limit`."""

    reasons = ("WORD_LIMIT_EXCEEDED",)


class LedgerImmutable(Conflict):
    """Rows that the ledger writes are corrected by further entries only."""

    reasons = ("LEDGER_IMMUTABLE",)


class RouteNotFound(NotFound):
    """Nothing is served at this path."""

    reasons = ("ROUTE_NOT_FOUND",)


class VerbNotAllowed(InvalidRequest):
    """The path does not take this HTTP method."""

    reasons = ("VERB_NOT_ALLOWED",)


class MediaTypeUnsupported(InvalidRequest):
    """The body is of a type that is not taken."""

    reasons = ("MEDIA_TYPE_UNSUPPORTED",)


class TicketInvalid(AccessRefused):
    """The stream ticket has expired, or is not for this stream: ask for another."""

    reasons = ("TICKET_INVALID",)
