"""zaaz.catalog.v1.CatalogService: all of it is the resource engine's."""

from zaaz.catalog.v1 import catalog_service_pb2 as pb

from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.resources.binder import bind
from server.resources.engine import Resources


class CatalogServicer:
    """Features and their endpoints; their rules stand in their declarations."""

    def __init__(self, resources: Resources) -> None:
        service = pb.DESCRIPTOR.services_by_name["CatalogService"]
        bind(self, service, resources, FEATURES, FEATURE_ENDPOINTS)
