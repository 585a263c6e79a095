"""Catalogs as YAML files: read into a CatalogDocument, and written from one. Pure."""

from zaaz_client.catalog_files.problems import CatalogFileError, Place
from zaaz_client.catalog_files.reading import CatalogFile, read_catalog
from zaaz_client.catalog_files.showing import show_difference
from zaaz_client.catalog_files.writing import write_catalog

__all__ = [
    "CatalogFile",
    "CatalogFileError",
    "Place",
    "read_catalog",
    "show_difference",
    "write_catalog",
]
