"""Where medici cannot be had, the comparison says why instead of saying nothing."""

import os
import shutil
from pathlib import Path

import pytest

from bench.compare import medici


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path of programs and a folder of packages, with neither in them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(medici, "FOLDER", tmp_path)
    (tmp_path / "package-lock.json").touch()
    return tmp_path


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_node(folder: Path) -> None:
    with pytest.raises(medici.LeftOutError, match="needs Node 20"):
        medici.installed()


def test_packages_that_cannot_be_installed(folder: Path) -> None:
    _program(folder / "node", "exit 0")
    _program(folder / "npm", "printf 'npm error\\n  no network\\n' >&2; exit 1")
    with pytest.raises(medici.LeftOutError) as left_out:
        medici.installed()
    assert str(left_out.value) == "npm ci failed: npm error no network"


def test_an_installation_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medici, "INSTALL_TIMEOUT_SECONDS", 0.01)
    _program(folder / "node", "exit 0")
    _program(folder / "npm", "while :; do :; done")
    with pytest.raises(medici.LeftOutError, match=r"npm ci took more than 0\.01 s"):
        medici.installed()


def test_packages_are_installed_once(folder: Path) -> None:
    _program(folder / "node", "exit 0")
    mkdir = shutil.which("mkdir", path=os.defpath)
    stamp = "node_modules/.package-lock.json"
    _program(folder / "npm", f"echo >> ran; {mkdir} -p node_modules; : > {stamp}")
    assert medici.installed() == medici.installed() == str(folder / "node")
    assert (folder / "ran").read_text() == "\n"
