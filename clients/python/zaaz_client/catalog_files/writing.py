"""A CatalogDocument to a YAML file that people like to read and review."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml
from zaaz.catalog.v1.catalog_document_pb2 import CatalogDocument

from zaaz_client.catalog_files.fields import ACTIVE, Field, fields_of
from zaaz_client.catalog_files.values import (
    AMOUNT_DECIMALS,
    PERCENT_DECIMALS,
    write_decimal,
    write_enum,
    write_time,
)

_WIDTH: Final = 100
_INDENT: Final = 2

Rows = dict[str, Any]


class _Number(str):
    """A number that is written as it stands, without quotes."""

    __slots__ = ()


class _Short(dict[str, Any]):
    """A mapping on one line."""


class _Row(list[Any]):
    """A list on one line."""


def write_catalog(document: CatalogDocument) -> str:
    """The file; read again, it is the same catalog. What is as it is by itself is left out."""
    sections: Rows = {
        "features": _features(document),
        "endpoints": {},
        "popups": {},
        "plans": {item.plan.name: _fields(item.plan) for item in document.plans},
        "packages": {item.package.value: _package(item) for item in document.packages},
        "coupons": {item.coupon.code: _coupon(item) for item in document.coupons},
    }
    known = {item.feature.value for item in document.features}
    for section, field, items in _of_features(document):
        for item in items:
            if item.feature not in known:
                row = getattr(item, field)
                sections[section][row.value] = {"feature": item.feature, **_fields(row)}
    parts = [_dump({name: rows}) for name, rows in sections.items() if rows]
    return "\n".join(parts) or "{}\n"


def _of_features(document: CatalogDocument) -> tuple[tuple[str, str, Iterable[Any]], ...]:
    return (
        ("endpoints", "feature_endpoint", document.feature_endpoints),
        ("popups", "feature_popup", document.feature_popups),
    )


def _features(document: CatalogDocument) -> Rows:
    """Features within their parents; those of parents that are not here say whose they are."""
    rows: Rows = {}
    for item in document.features:
        rows[item.feature.value] = _fields(item.feature)
    for section, field, items in _of_features(document):
        for item in items:
            if item.feature in rows:
                row = getattr(item, field)
                rows[item.feature].setdefault(section, {})[row.value] = _fields(row)
    parents = {item.feature.value: item.parent for item in document.features}
    top: Rows = {}
    for value, parent in parents.items():
        if parent in rows and not _circles(value, parents):
            rows[parent].setdefault("features", {})[value] = rows[value]
        else:
            top[value] = {"parent": parent, **rows[value]} if parent else rows[value]
    return top


def _circles(value: str, parents: Mapping[str, str]) -> bool:
    """Whether a feature stands below itself: no document that the server gives has that."""
    seen = {value}
    above = parents[value]
    while above in parents and above not in seen:
        seen.add(above)
        above = parents[above]
    return above in seen


def _package(item: Any) -> Rows:
    row = _fields(item.package)
    if item.plans:
        row["plans"] = {one.plan: _fields(one.package_plan) for one in item.plans}
    included = [one.package_feature for one in item.features]
    if all(one.is_active and one.sequence == i for i, one in enumerate(included, start=1)):
        names = _Row(one.feature for one in item.features)
        return {**row, "features": names} if names else row
    return {
        **row,
        "features": {one.feature: _Short(_fields(one.package_feature)) for one in item.features},
    }


def _coupon(item: Any) -> Rows:
    row = _fields(item.coupon)
    return {**row, "packages": _Row(item.packages)} if item.packages else row


def _fields(message: Any) -> Rows:
    """What is set of a message, by key."""
    row: Rows = {}
    set_ = {field.name: value for field, value in message.ListFields()}
    active = ACTIVE in message.DESCRIPTOR.fields_by_name
    for key, field in fields_of(message.DESCRIPTOR).items():
        if field.name == ACTIVE and active:
            if not message.is_active:
                row[key] = False
        elif field.name in set_:
            row[key] = _written(field, set_[field.name])
    return row


def _written(field: Field, value: Any) -> Any:
    if not field.descriptor.is_repeated:
        return _Short(_fields(value)) if field.is_message else _value(field, value)
    if field.is_message:
        return [_Short(_fields(one)) for one in value]
    values = [_value(field, one) for one in value]
    return _Row(values) if field.descriptor.enum_type is not None else values


def _value(field: Field, value: Any) -> Any:
    descriptor: Any = field.descriptor
    if field.is_amount:
        return _Number(write_decimal(value, AMOUNT_DECIMALS))
    if field.is_percent:
        return _Number(write_decimal(value, PERCENT_DECIMALS))
    if field.is_time:
        return _Number(write_time(value))
    if descriptor.enum_type is not None:
        return write_enum(value, descriptor.enum_type)
    return value


def write_value(message: Any, field: str) -> str:
    """What a file would say of one field that is set, on one line."""
    for known in fields_of(message.DESCRIPTOR).values():
        if known.name == field:
            value = _written(known, getattr(message, field))
            if isinstance(value, str):
                return " ".join(value.split())
            text = _dump({"_": _Row(value) if isinstance(value, list) else value})
            return " ".join(text.removeprefix("_:").split())
    return ""


# YAML


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and long texts stand as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _number(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    resolver: Any = dumper
    return dumper.represent_scalar(resolver.resolve(yaml.ScalarNode, text, (True, False)), text)


_MAP: Final = "tag:yaml.org,2002:map"
_SEQ: Final = "tag:yaml.org,2002:seq"

_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Number, _number)
_Dumper.add_representer(
    _Short, lambda dumper, row: dumper.represent_mapping(_MAP, row, flow_style=True)
)
_Dumper.add_representer(
    _Row, lambda dumper, row: dumper.represent_sequence(_SEQ, row, flow_style=True)
)


def _dump(section: Rows) -> str:
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True}
    text = yaml.dump(section, Dumper=_Dumper, width=_WIDTH, indent=_INDENT, **options)
    return str(text)
