"""The wheel holds what it should and nothing else, and works where only the wheel is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = (
    "agent",
    "agent/reasoner",
    "tools",
    "tools/backbones",
    "tools/ad_expert",
    "tools/knowledge",
    "tools/logic",
    "tools/control_plan",
    "audits",
    "audits/page",
)
PACKAGES = (*PACKAGES, "graphs", "prompts", "benchmarks", "commands", "edges")
PACKAGES = (*PACKAGES, "benchmarks/datasets", "benchmarks/mmad", "tools/weights", "training", "training/questions")
PACKAGES = (
    *PACKAGES,
    "agent/language_model",
    "agent/vision_language",
    "agent/vision_language/latent",
    "agent/uncertainty",
    "agent/review",
)
DATA = {
    "agent/profiles": ".toml",
    "tools/backbones": ".onnx",
    "tools/knowledge/documents": ".yaml",
    "prompts": ".md",
    "audits/page/scripts": ".js",
}
FILES = ("tools/backbones/NOTICE", "tools/knowledge/vocabulary.yaml", "prompts/ensemble.yaml")
FILES = (*FILES, "benchmarks/published.yaml")
FILES = (*FILES, "agent/review/page.html", "agent/review/page.css", "agent/review/page.js")
FILES = (*FILES, "audits/page/page.html", "audits/page/page.css", "audits/page/early.js")


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Standard output of a command that must succeed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLAWSCOPE_", "PYTHON", "COV_"))}
    given = [str(part) for part in command]
    done = subprocess.run(given, cwd=cwd, env=clean | environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{given}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def tracked() -> list[str]:
    """The checkout's own files: what is committed or about to be."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def expected_files() -> set[str]:
    """What belongs into the wheel, by rule: the packages' modules and their data."""
    wanted = {"flawscope/cli.py", *(f"flawscope/{name}" for name in FILES)}
    wanted |= {f"flawscope/{folder}/py.typed" for folder in PACKAGES if "/" not in folder}
    for name in tracked():
        path = PurePosixPath(name)
        folder = str(path.parent)
        if (path.suffix == ".py" and folder in PACKAGES) or DATA.get(folder) == path.suffix:
            wanted.add(f"flawscope/{name}")
    return wanted


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, in which the build may leave what it likes, beside files that are strays."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        if not name.startswith(("examples/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    for stray in ("notes.txt", "tools/notes.txt", "agent/profiles/draft.toml.bak", "out/report.json", "docs/page.md"):
        (source / stray).parent.mkdir(parents=True, exist_ok=True)
        (source / stray).write_text("stray")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out)
    run(*command, cwd=source, PYTHONPATH="")
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return set(archive.namelist())


def test_it_is_named_after_the_project(wheel: Path) -> None:
    assert wheel.name == f"flawscope-{PROJECT['project']['version']}-py3-none-any.whl"


def test_it_holds_the_packages_and_their_data_and_nothing_else(names: set[str]) -> None:
    package = {name for name in names if ".dist-info/" not in name}
    wanted = expected_files()
    assert sorted(wanted - package) == []
    assert sorted(package - wanted) == []


def test_each_kind_of_data_is_there(names: set[str]) -> None:
    for folder, suffix in DATA.items():
        assert [name for name in names if name.startswith(f"flawscope/{folder}/") and name.endswith(suffix)], folder
    for outside in ("tests", "docs", "examples", "out", "build"):
        assert not [name for name in names if name.startswith((f"flawscope/{outside}/", f"{outside}/"))]


def test_every_package_folder_is_declared() -> None:
    declared = {name.removeprefix("flawscope").lstrip(".") for name in PROJECT["tool"]["setuptools"]["packages"]}
    found = {str(PurePosixPath(name).parent).replace("/", ".") for name in tracked() if name.endswith("/__init__.py")}
    found = {name for name in found if not name.startswith(("tests", "examples", "docs"))}
    assert declared == {"", *found}
    assert set(PACKAGES) == {name.replace(".", "/") for name in found}


def test_metadata(wheel: Path, names: set[str]) -> None:
    info = f"flawscope-{PROJECT['project']['version']}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    with zipfile.ZipFile(wheel) as archive:
        scripts = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert "flawscope = flawscope.cli:main" in scripts
    assert "License-Expression: Apache-2.0" in metadata
    plain = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert len(plain) == len(PROJECT["project"]["dependencies"])
    assert not [line for line in plain if "torch" in line]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    # --no-deps and not the tests' own site as a .pth before it: an editable checkout there must not stand in.
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    run(*pip, cwd=folder)
    dependencies = site / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "flawscope" not in entry.name and entry.suffix != ".pth":
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder


def test_the_console_script_runs_anywhere(installed: Path, tmp_path: Path) -> None:
    script = installed / "bin" / "flawscope"
    told = run(script, "--help", cwd=tmp_path, FLAWSCOPE_HOME=str(tmp_path))
    assert "inspect" in told
    assert "enroll" in told


def test_the_installed_package_is_whole(installed: Path, tmp_path: Path) -> None:
    probe = """
import flawscope.agent, pathlib
from flawscope.agent import Inspector, load_settings
from flawscope.prompts import load_prompts
from flawscope.tools.backbones import load_backbone
from flawscope.tools.knowledge.schema import load_documents
from flawscope.tools.registry import TOOLS
assert len(load_documents()) >= 30
load_prompts("report"), load_settings(), load_backbone("efficientnet-lite2")
[tool.load() for tool in TOOLS.values()]
print(pathlib.Path(flawscope.agent.__file__))
"""
    python = installed / "bin" / "python"
    where = run(python, "-c", probe, cwd=tmp_path, FLAWSCOPE_HOME=str(tmp_path)).strip()
    assert Path(where).is_relative_to(installed)
