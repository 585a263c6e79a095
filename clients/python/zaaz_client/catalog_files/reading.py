"""A YAML file to a CatalogDocument. Scalars are taken as they are written: `9.99` is no float."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import yaml
from google.protobuf.descriptor import FieldDescriptor
from zaaz.catalog.v1.catalog_document_pb2 import CatalogDocument

from zaaz_client.catalog_files.fields import ACTIVE, NAMED_BY, Field, fields_of
from zaaz_client.catalog_files.problems import (
    CatalogFileError,
    Place,
    Problems,
    place_of,
    unknown,
)
from zaaz_client.catalog_files.values import (
    AMOUNT_DECIMALS,
    PERCENT_DECIMALS,
    read_boolean,
    read_decimal,
    read_enum,
    read_integer,
    read_time,
)

MAX_FILE_CHARACTERS: Final = 8 * 1024 * 1024
"""Twice what the server takes of it."""

MAX_FILE_ROWS: Final = 20_000
"""Ten times what the server takes: aliases make many of few."""

MAX_DEPTH: Final = 32
"""Features within features."""

MAX_NESTING: Final = 200
"""Lists and pairs within each other. Twice what features that deep take, and a way below what
YAML's reader, which has no bound, crashes at."""

_NULL: Final = "tag:yaml.org,2002:null"
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Section = Callable[[Any], None]


class CatalogFile(NamedTuple):
    """A file's document, and where in the file each of its parts stands."""

    document: CatalogDocument
    places: dict[str, Place]

    def place(self, path: str) -> Place | None:
        """Where a path of a request stands, as "document.packages[2].plans[0].plan"."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None


def read_catalog(text: str, name: str) -> CatalogFile:
    """The catalog in the text of the file called `name`. CatalogFileError."""
    problems = Problems(name)
    if len(text) > MAX_FILE_CHARACTERS:
        raise CatalogFileError(
            [f"{name}: is longer than {MAX_FILE_CHARACTERS >> 20} Mi characters"]
        )
    reader = _Reader(problems)
    root = _compose(text, name)
    if root is not None:
        reader.read(root)
    problems.conclude()
    return CatalogFile(reader.document, reader.places)


def _compose(text: str, name: str) -> Any:
    """The file's nodes; None for an empty one."""
    try:
        _check_nesting(text, name)
        return yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise CatalogFileError([f"{name}{place}: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CatalogFileError([f"{name}: is no YAML: {error}"]) from None


def _check_nesting(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            line, column = place_of(event)
            problem = f"more than {MAX_NESTING} lists or pairs within each other"
            raise CatalogFileError([f"{name}:{line}:{column}: {problem}"])


class _Reader:
    """Fills `document` from nodes; `places` by path. What is wrong goes into `problems`."""

    def __init__(self, problems: Problems) -> None:
        self.document = CatalogDocument()
        self.places: dict[str, Place] = {}
        self._problems = problems
        self._rows = 0

    def read(self, root: Any) -> None:
        self._sections(
            root,
            {
                "features": partial(self._features, parent="", depth=1),
                "endpoints": partial(self._endpoints, feature=None),
                "popups": partial(self._popups, feature=None),
                "plans": self._plans,
                "packages": self._packages,
                "coupons": self._coupons,
            },
        )

    def _sections(self, node: Any, sections: dict[str, _Section]) -> None:
        for key, key_node, value in self._pairs(node):
            if key in sections:
                sections[key](value)
            else:
                self._problems.add(key_node, unknown("key", key, sections))

    # Rows

    def _features(self, node: Any, parent: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._problems.add(node, f"more than {MAX_DEPTH} features within each other")
            return
        for value, key_node, body in self._pairs(node):
            item, path = self._row("features", key_node)
            item.parent = parent
            inner: dict[str, _Section] = {
                "features": partial(self._features, parent=value, depth=depth + 1),
                "endpoints": partial(self._endpoints, feature=value),
                "popups": partial(self._popups, feature=value),
            }
            if not parent:
                inner["parent"] = self._name_into(item, "parent", path)
            self._fill(item.feature, value, body, f"{path}.feature", inner)

    def _endpoints(self, node: Any, feature: str | None) -> None:
        self._of_feature(node, feature, "feature_endpoints", "feature_endpoint")

    def _popups(self, node: Any, feature: str | None) -> None:
        self._of_feature(node, feature, "feature_popups", "feature_popup")

    def _of_feature(self, node: Any, feature: str | None, rows: str, field: str) -> None:
        """Rows under their feature, or by themselves, saying which it is."""
        for value, key_node, body in self._pairs(node):
            item, path = self._row(rows, key_node)
            item.feature = feature or ""
            inner = {"feature": self._name_into(item, "feature", path)} if feature is None else {}
            self._fill(getattr(item, field), value, body, f"{path}.{field}", inner)

    def _plans(self, node: Any) -> None:
        for name, key_node, body in self._pairs(node):
            item, path = self._row("plans", key_node)
            self._fill(item.plan, name, body, f"{path}.plan", {})

    def _packages(self, node: Any) -> None:
        for value, key_node, body in self._pairs(node):
            item, path = self._row("packages", key_node)
            inner: dict[str, _Section] = {
                "plans": partial(self._prices, item, path),
                "features": partial(self._included, item, path),
            }
            self._fill(item.package, value, body, f"{path}.package", inner)

    def _prices(self, package: Any, within: str, node: Any) -> None:
        for plan, key_node, body in self._pairs(node):
            item, path = self._row("plans", key_node, package, within)
            item.plan = plan
            self._fill(item.package_plan, "", body, f"{path}.package_plan", {})

    def _included(self, package: Any, within: str, node: Any) -> None:
        """Features by name in their order, or each with fields of its own."""
        if isinstance(node, yaml.MappingNode):
            for name, key_node, body in self._pairs(node):
                item, path = self._row("features", key_node, package, within)
                item.feature = name
                self._fill(item.package_feature, "", body, f"{path}.package_feature", {})
            return
        for number, one in enumerate(self._items(node), start=1):
            item, _ = self._row("features", one, package, within)
            item.feature = self._text(one)
            item.package_feature.is_active = True
            item.package_feature.sequence = number

    def _coupons(self, node: Any) -> None:
        for code, key_node, body in self._pairs(node):
            item, path = self._row("coupons", key_node)
            inner = {"packages": partial(self._covered, item, path)}
            self._fill(item.coupon, code, body, f"{path}.coupon", inner)

    def _covered(self, coupon: Any, path: str, node: Any) -> None:
        for i, name in enumerate(self._items(node)):
            self.places[f"{path}.packages[{i}]"] = place_of(name)
            coupon.packages.append(self._text(name))

    def _row(
        self, rows: str, node: Any, within: Any = None, path: str = "document"
    ) -> tuple[Any, str]:
        """A new row of the document, and its path."""
        self._rows += 1
        if self._rows > MAX_FILE_ROWS:
            self._problems.add(node, f"more than {MAX_FILE_ROWS:,} rows")
            self._problems.conclude()
        held = getattr(self.document if within is None else within, rows)
        own = f"{path}.{rows}[{len(held)}]"
        self.places[own] = place_of(node)
        return held.add(), own

    def _name_into(self, item: Any, field: str, path: str) -> _Section:
        def take(node: Any) -> None:
            self.places[f"{path}.{field}"] = place_of(node)
            setattr(item, field, self._text(node))

        return take

    # Fields

    def _fill(
        self, message: Any, named: str, node: Any, path: str, inner: Mapping[str, _Section]
    ) -> None:
        """The row's fields and what stands within it."""
        message.SetInParent()
        own = NAMED_BY.get(message.DESCRIPTOR.name)
        if own:
            setattr(message, own, named)
        if ACTIVE in message.DESCRIPTOR.fields_by_name:
            message.is_active = True
        self._fields(message, node, path, inner)

    def _fields(self, message: Any, node: Any, path: str, inner: Mapping[str, _Section]) -> None:
        known = fields_of(message.DESCRIPTOR)
        for key, key_node, value in self._pairs(node):
            if key in inner:
                inner[key](value)
            elif key in known:
                field = known[key]
                self.places[f"{path}.{field.name}"] = place_of(key_node)
                self._field(message, field, value, f"{path}.{field.name}")
            else:
                self._problems.add(key_node, unknown("key", key, (*known, *inner)))

    def _field(self, message: Any, field: Field, node: Any, path: str) -> None:
        if field.descriptor.is_repeated:
            held = getattr(message, field.name)
            for i, one in enumerate(self._items(node)):
                if field.is_message:
                    self._fields(held.add(), one, f"{path}[{i}]", {})
                else:
                    self._set(held.append, field, one)
        elif field.is_message:
            inside = getattr(message, field.name)
            inside.SetInParent()
            self._fields(inside, node, path, {})
        elif field.is_time:
            self._set(getattr(message, field.name).CopyFrom, field, node)
        else:
            self._set(lambda value: setattr(message, field.name, value), field, node)

    def _set(self, take: Callable[[Any], None], field: Field, node: Any) -> None:
        if not isinstance(node, yaml.ScalarNode):
            self._problems.add(node, f"{field.key} must be one value")
            return
        try:
            take(_value(field, "" if node.tag == _NULL else node.value))
        except ValueError as error:
            text = str(error)
            problem = text if "out of range" not in text else f"{node.value} is too large"
            self._problems.add(node, problem)

    # Nodes

    def _pairs(self, node: Any) -> Iterator[tuple[str, Any, Any]]:
        """Keys with their nodes and values; nothing for an empty value."""
        if node.tag == _NULL:
            return
        if not isinstance(node, yaml.MappingNode):
            self._problems.add(node, "must be `key: value` pairs")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            key = self._text(key_node)
            if key in seen:
                self._problems.add(key_node, f"{key!r} comes twice")
            seen.add(key)
            yield key, key_node, value

    def _items(self, node: Any) -> Iterator[Any]:
        if node.tag == _NULL:
            return
        if not isinstance(node, yaml.SequenceNode):
            self._problems.add(node, "must be a list")
            return
        yield from node.value

    def _text(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._problems.add(node, "must be a name")
            return ""
        return str(node.value)


def _value(field: Field, text: str) -> Any:
    descriptor: Any = field.descriptor
    if field.is_amount:
        return read_decimal(text, AMOUNT_DECIMALS)
    if field.is_percent:
        return read_decimal(text, PERCENT_DECIMALS)
    if field.is_time:
        return read_time(text)
    if descriptor.enum_type is not None:
        return read_enum(text, descriptor.enum_type)
    return _READERS[descriptor.cpp_type](text)


_READERS: Final[dict[int, Callable[[str], Any]]] = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: read_boolean,
    FieldDescriptor.CPPTYPE_INT32: read_integer,
    FieldDescriptor.CPPTYPE_INT64: read_integer,
}
