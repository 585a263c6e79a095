"""zaaz.catalog.v1.CatalogService: the verbs of its rows are the resource engine's."""

from zaaz.catalog.v1 import catalog_service_pb2 as pb

from server.catalog.document.servicer import DocumentServicer
from server.catalog.packages.resources import RESOURCES as PACKAGE_RESOURCES
from server.catalog.popups.servicer import PopupsServicer
from server.catalog.popups.store import PopupStore
from server.catalog.resources import FEATURE_ENDPOINTS, FEATURES
from server.kernel.clock import Clock
from server.resources.binder import bind
from server.resources.engine import Resources


class CatalogServicer(PopupsServicer, DocumentServicer):
    """What products offer; the rules of rows stand in their declarations."""

    def __init__(self, resources: Resources, popups: PopupStore, clock: Clock) -> None:
        PopupsServicer.__init__(self, resources, popups, clock)
        DocumentServicer.__init__(self, resources)
        service = pb.DESCRIPTOR.services_by_name["CatalogService"]
        bind(self, service, resources, FEATURES, FEATURE_ENDPOINTS, *PACKAGE_RESOURCES)
