"""Routes: read from the contract, one for each method, none hidden by another."""

from collections import Counter

import pytest
from google.protobuf.descriptor import MethodDescriptor

from gateway.binding import Binding
from gateway.decoding import Decoders
from gateway.immutable import immutable_tree
from gateway.routes import Route, contract_files, routes_of
from gateway.templates import ONE, REST, Variable, parse_template
from gateway.tree import RouteConflictError, Tree

FILES = contract_files()
ROUTES = routes_of(FILES)
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.verb} {r.path}")


def tree_of(*paths: str, verb: str = "GET") -> Tree[str]:
    tree: Tree[str] = Tree()
    for path in paths:
        tree.add(parse_template(path), verb, path)
    return tree


def found(tree: Tree[str], path: str, verb: str = "GET") -> str | None:
    match = tree.find(path[1:].split("/"), verb)
    return match.target if match is not None else None


def test_the_services_of_every_domain_are_found() -> None:
    names = {method.containing_service.name for method in METHODS}

    assert names >= {"AuthService", "CreditsService", "UsageService", "WalletService"}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_method_that_http_can_carry_has_one_primary_route(method: MethodDescriptor) -> None:
    primary = [route for route in ROUTES if route.method is method and route.primary]

    assert len(primary) == (0 if method.client_streaming and method.server_streaming else 1)


@EVERY_ROUTE
def test_every_route_is_reached_by_its_own_path(route: Route) -> None:
    tree: Tree[Route] = Tree()
    for each in ROUTES:
        tree.add(parse_template(each.path), each.verb, each)
    segments = [
        "65f000000000000000000001" if segment in {ONE, REST} else segment
        for segment in parse_template(route.path).segments
    ]

    match = tree.find(segments, route.verb)

    assert match is not None
    assert match.target is route


@EVERY_ROUTE
def test_every_route_can_be_bound(route: Route) -> None:
    Binding(route, parse_template(route.path), Decoders())


def test_no_two_routes_collide() -> None:
    shapes = Counter((r.verb, parse_template(r.path).segments) for r in ROUTES)

    assert [shape for shape, times in shapes.items() if times > 1] == []


def test_ledgers_and_histories_are_told_from_resources() -> None:
    tree = immutable_tree(ROUTES)

    for module in ("credits-transactions", "credits-usages"):
        for verb, path in (
            ("POST", f"api/{module}"),
            ("PATCH", f"api/{module}/x"),
            ("DELETE", f"api/{module}/x"),
            ("DELETE", f"api/{module}/bulk"),
            ("POST", f"api/{module}/x/restore"),
            ("DELETE", f"api/{module}/x/permanent"),
        ):
            match = tree.find(path.split("/"), verb)
            assert match is not None
            assert match.target
    for module in ("user-wallets", "api-keys"):
        assert tree.find(["api", module, "x"], "DELETE") is None


class TestTemplates:
    def test_variables_know_their_segments(self) -> None:
        template = parse_template("/api/{a.b}/x/{name=shelves/*/**}:open")

        assert template.segments == ("api", ONE, "x", "shelves", ONE, REST)
        assert template.variables == (
            Variable("a.b", 1, 2, is_single=True),
            Variable("name", 3, None, is_single=False),
        )
        assert template.verb == "open"

    @pytest.mark.parametrize(
        "text",
        ["", "api", "/", "/api/{", "/api/{}", "/api/{a", "/{a={b}}", "/{a=**}/b", "/a:", "/{a..b}"],
    )
    def test_what_is_no_template(self, text: str) -> None:
        with pytest.raises(ValueError, match="no path template"):
            parse_template(text)


class TestTree:
    def test_literals_win_at_every_segment(self) -> None:
        tree = tree_of("/api/{id}", "/api/bulk", "/api/{id}/x", "/{a}/bulk", "/api/{rest=**}")

        assert found(tree, "/api/bulk") == "/api/bulk"
        assert found(tree, "/api/1") == "/api/{id}"
        assert found(tree, "/api/bulk/x") == "/api/{id}/x"
        assert found(tree, "/b/bulk") == "/{a}/bulk"
        assert found(tree, "/api/1/2/3") == "/api/{rest=**}"
        assert found(tree, "/api") == "/api/{rest=**}"

    def test_a_better_match_without_the_verb_hides_nothing(self) -> None:
        tree = tree_of("/api/{id}")
        tree.add(parse_template("/api/bulk"), "DELETE", "bulk")

        assert found(tree, "/api/bulk", "DELETE") == "bulk"
        assert found(tree, "/api/bulk", "GET") == "/api/{id}"
        match = tree.find(["api", "bulk"], "PUT")
        assert match is not None
        assert match.target is None
        assert match.verbs == {"GET", "DELETE"}

    def test_empty_segments_are_no_values(self) -> None:
        tree = tree_of("/api/{id}", "/api/{id}/x", "/files/{rest=**}")

        assert found(tree, "/api/") is None
        assert found(tree, "/api//x") is None
        assert found(tree, "/files/a//b") is None

    def test_verbs_behind_a_colon(self) -> None:
        tree = tree_of("/api/{id}:open", "/api/{id}")

        assert found(tree, "/api/1:open") == "/api/{id}:open"
        assert found(tree, "/api/1:shut") == "/api/{id}"
        assert found(tree, "/api/:open") == "/api/{id}"

    def test_a_second_route_of_the_same_paths_is_refused(self) -> None:
        with pytest.raises(RouteConflictError):
            tree_of("/api/{id}", "/api/{user_id}")

    def test_long_paths_match_nothing(self) -> None:
        assert found(tree_of("/{rest=**}"), "/a" * 33) is None
