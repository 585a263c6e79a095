"""`mypy --strict` as a user of the SDK runs it: on a wheel, without this repository's settings."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from .test_readme import EXAMPLES, README

ROOT = README.parents[2]
USE = Path(__file__).with_name("typed_use.py")
CACHE = ROOT / ".mypy_cache" / "users"
"""Kept, since what the vendors' clients are made of takes most of the time."""
LIMIT_SECONDS = 300


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a copy: a build leaves its own behind where it is made."""
    folder = tmp_path_factory.mktemp("wheel")
    leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(README.parent, folder / "source", ignore=leftovers)
    words = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder))
    run(sys.executable, "-m", "pip", *words, str(folder / "source"))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture
def python(wheel: Path, tmp_path: Path) -> Path:
    """Of a user: it has the wheel, and what the wheel needs, but not what is edited here."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    # Lines of this .pth are only paths: it finds packages there, and no editable ones.
    (packages / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    words = ("install", "--no-deps", "--no-index", "--target", str(packages), str(wheel))
    run(sys.executable, "-m", "pip", *words)
    found = home / "bin" / "python"
    where = run(str(found), "-c", "import zaaz_client; print(zaaz_client)")
    assert str(packages) in where
    return found


def run(*words: str, folder: Path | None = None) -> str:
    """What the program says; it must succeed."""
    names = ("PYTHONPATH", "MYPYPATH")
    env = {name: value for name, value in os.environ.items() if name not in names}
    ended = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_wheel_has_what_type_checkers_read(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    assert {"zaaz/py.typed", "zaaz_client/py.typed", "zaaz/lists.pyi"} <= names
    generated = [name for name in names if name.endswith(("_pb2.py", "_pb2_grpc.py"))]
    assert len(generated) > 40
    assert {f"{name}i" for name in generated} <= names


def test_strict_on_all_that_users_write(python: Path, tmp_path: Path) -> None:
    shutil.copy(USE, tmp_path)
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(example, encoding="utf-8")
    words = ("--strict", "--config-file", os.devnull, "--cache-dir", str(CACHE))
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    mypy = (sys.executable, "-m", "mypy", *words, "--python-executable", str(python))
    said = run(*mypy, *files, folder=tmp_path)
    assert f"no issues found in {len(EXAMPLES) + 1} source files" in said
