"""zaaz.catalog.v1.CatalogService: its verbs are the resource engine's."""

from zaaz.catalog.v1 import catalog_service_pb2 as pb
from zaaz.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer

from server.catalog.packages.resources import RESOURCES as PACKAGE_RESOURCES
from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.resources.binder import bind
from server.resources.engine import Resources


class CatalogServicer(CatalogServiceServicer):
    """What products offer; the rules of rows stand in their declarations."""

    def __init__(self, resources: Resources) -> None:
        service = pb.DESCRIPTOR.services_by_name["CatalogService"]
        bind(self, service, resources, FEATURES, FEATURE_ENDPOINTS, *PACKAGE_RESOURCES)
