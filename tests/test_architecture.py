"""The house's arrows (ARCHITECTURE.md), read from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 500

ALLOWED: dict[str, set[str]] = {
    "kernel": set(),
    "mongo": {"kernel"},
    "rpc": {"kernel"},
    "messaging": {"kernel", "mongo"},
    "realtime": {"kernel"},
    "ledger": {"kernel", "mongo"},
    "resources": {"kernel", "mongo", "rpc"},
    "auth": {"kernel", "mongo"},
    "wallet": {"kernel", "mongo", "ledger"},
    "workers": {"kernel", "mongo", "ledger"},
    "credits": {"kernel", "mongo", "resources", "ledger"},
    "catalog": {"kernel", "mongo", "resources", "ledger"},
    "subscriptions": {"kernel", "mongo", "resources", "ledger"},
    "config": {"rpc"},
    "demo": {"catalog", "kernel", "resources", "rpc"},
    "rest": {"config", "kernel", "rpc"},
}
"""What a part of the server may import beside itself. ROOTS may import all."""

EDGE_FILES = {
    "auth/servicer.py",
    "catalog/document/reading.py",
    "credits/servicer.py",
    "credits/usage_servicer.py",
    "credits/stream.py",
    "credits/events.py",
    "credits/feature_usage/reader.py",
}
"""Files that translate the contract's messages, and so may know the edge (`rpc`)."""

ROOTS = {"app", "cli", "composition", "__main__"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def part(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


def server_files() -> list[Path]:
    return sorted((ROOT / "server").rglob("*.py"))


@pytest.mark.parametrize("path", server_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    inside = path.relative_to(ROOT / "server")
    own = inside.parts[0].removesuffix(".py")
    if own in ROOTS or own == "__init__":
        return
    allowed = ALLOWED[own] | {own}
    if str(inside) in EDGE_FILES:
        allowed = allowed | {"rpc"}
    used = {part(name) for name in imports(path) if name.split(".")[0] == "server"}
    assert used <= allowed, f"{inside} imports {sorted(used - allowed)}"


def test_only_the_roots_import_the_composition_root() -> None:
    importers = {
        str(path.relative_to(ROOT / "server"))
        for path in server_files()
        if {"server.app", "server.cli"} & set(imports(path))
    }
    assert importers == {"cli.py", "__main__.py"}


def test_pure_files_do_no_input_or_output() -> None:
    forbidden = {"asyncio", "pymongo", "grpc", "socket", "os", "pathlib", "server.mongo"}
    pure = [*(ROOT / "server").rglob("model.py"), ROOT / "server/ledger/apply.py"]
    rules = ("operations", "chain", "grants", "posting", "expiry", "settlement", "holds", "alerts")
    pure += [ROOT / f"server/ledger/{name}.py" for name in rules]
    for path in pure:
        assert not forbidden & {name.split(".")[0] for name in imports(path)}, path


def test_clients_do_not_import_the_server() -> None:
    for path in (ROOT / "clients/python/zaaz_client").rglob("*.py"):
        assert not any(name.split(".")[0] in {"server", "gateway"} for name in imports(path)), path


def test_the_sdk_does_not_import_its_command() -> None:
    sdk = ROOT / "clients/python/zaaz_client"
    importers = {
        path.relative_to(sdk)
        for path in sdk.rglob("*.py")
        if any(name.startswith("zaaz_client.command") for name in imports(path))
    }
    of_the_command = {
        path
        for path in importers
        if path.parts[0] in {"command", "replay"} or path.stem.endswith("command")
    }
    assert importers
    assert importers == of_the_command


def test_the_gateway_knows_the_contract_alone() -> None:
    for path in (ROOT / "gateway").rglob("*.py"):
        assert not any(name.split(".")[0] == "server" for name in imports(path)), path


def test_no_module_outgrows_its_room() -> None:
    for folder in ("server", "gateway", "clients/python/zaaz_client", "tests", "bench", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= MAX_LINES, path
