"""What is shipped: the wheel and the source distribution, as they install, and beside them a
backend that somebody else might have written.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.packaging.environment import TOP, Environment, build, run

TOY = TOP / "tests" / "packaging" / "toy_backend"
PROJECT: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text())
WHEEL_TARGET = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES = [Path(path).name for path in WHEEL_TARGET["packages"]]
# Which modules an extra is for; all others need only what storebridge itself requires.
EXTRA_OF = {
    "storebridge.cli": "cli",
    "storebridge.__main__": "cli",
    "storebridge.testing": "testing",
    "storebridge_lmdb": "lmdb",
    "storebridge_sqlalchemy": "postgres",
    "storebridge_tinydb.storage": "tinydb",
    "storebridge_tinydb.aiostorage": "aiotinydb",
}
IMPORT_ALL = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    assert len(build(TOP, folder, "sdist", "wheel")) == 2
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Storebridge alone, with what it requires and no extra."""
    environment = Environment(tmp_path_factory.mktemp("bare"))
    environment.install(wheel)
    environment.borrow(requirements_of(""))
    return environment


@pytest.fixture(scope="module")
def toy(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The toy, installed beside storebridge, and what its tests need."""
    folder = tmp_path_factory.mktemp("toy")
    environment = Environment(folder / "venv")
    shutil.copytree(TOY, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    environment.install(wheel, *build(folder / "source", folder / "dist", "wheel"))
    environment.borrow(requirements_of("testing"))
    return environment


def requirements_of(extra: str) -> list[str]:
    """What storebridge requires with an extra; the empty one: without any."""
    required: list[str] = PROJECT["project"]["dependencies"]
    optional: list[str] = PROJECT["project"]["optional-dependencies"].get(extra, [])
    return required + [text for text in optional if not text.startswith("storebridge")]


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def entry_points_of(wheel: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        parser.read_string(archive.read(name).decode())
    return parser


def modules_of(wheel: Path, extra: str) -> list[str]:
    """The modules that an extra is for."""
    paths = [Path(name).with_suffix("") for name in names_in(wheel) if name.endswith(".py")]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    # Asked to run, not to be imported.
    modules.remove("storebridge.__main__")
    return [module for module in modules if extra_of(module) == extra]


def extra_of(module: str) -> str:
    for prefix, extra in EXTRA_OF.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return extra
    return ""


def test_wheel_holds_the_packages(wheel: Path) -> None:
    """Storebridge, its backends, their types; nothing else, and no tests."""
    names = names_in(wheel)
    info = f"storebridge-{metadata_of(wheel)['Version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {*PACKAGES, info}
    for package in PACKAGES:
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    assert [name for name in names if re.search(r"(^|/)(tests?/|test_|conftest)", name)] == []
    assert f"{info}/licenses/LICENSE" in names


def test_every_backend_is_shipped(wheel: Path) -> None:
    """What is in backends/ is in the wheel, and has its name in the entry points."""
    sources = sorted(path.parent.name for path in (TOP / "backends").glob("*/__init__.py"))
    assert sorted(set(PACKAGES) - {"storebridge"}) == sources
    backends = entry_points_of(wheel)["storebridge.backends"]
    assert sorted(name.split(":")[0] for name in backends.values()) == sources


def test_metadata(wheel: Path) -> None:
    """Name, licence, Python and a description; no upper bounds, and a lower one for everything."""
    metadata = metadata_of(wheel)
    assert metadata["Name"] == "storebridge"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert required
    for requirement in required:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, requirement


def test_source_distribution_is_enough(dist: Path, wheel: Path, tmp_path: Path) -> None:
    """From the source distribution alone the same wheel is built; it holds the tests, and none of
    what only a working copy has.
    """
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "tests" / "test_packaging.py").is_file()
    assert not [path for path in source.iterdir() if path.name in (".venv", ".git", ".oracle")]
    out = tmp_path / "out"
    (again,) = build(source, out, "wheel")
    assert names_in(again) == names_in(wheel)
    with zipfile.ZipFile(again) as ours, zipfile.ZipFile(wheel) as theirs:
        assert all(ours.read(name) == theirs.read(name) for name in ours.namelist())


def test_import_brings_in_no_backend(bare: Environment) -> None:
    """`import storebridge` is light: no backend, no engine, no event loop, no command line."""
    loaded = json.loads(
        bare.python("import storebridge, sys, json; print(json.dumps(sorted(sys.modules)))")
    )
    tops = {name.split(".")[0] for name in loaded}
    assert {"storebridge", "msgspec"} <= tops
    heavy = {"sqlite3", "lmdb", "asyncio", "sqlalchemy", "click", "rich", "pytest", "hypothesis"}
    assert tops.isdisjoint(heavy)
    assert not [name for name in tops if name.startswith("storebridge_")]


def test_store_opens_there(bare: Environment, tmp_path: Path) -> None:
    """Installed without extras, the default backend works, by configuration alone."""
    code = """
from storebridge import Job, open_job_store
with open_job_store() as jobs:
    jobs.create(Job(id="j-1"))
with open_job_store(read_only=True) as jobs:
    print(jobs.get("j-1").state, jobs.database.location.backend.name)
"""
    # -I would hide no variable of ours: it concerns PYTHON* alone.
    said = bare.python(code, JOB_STORE_PATH=str(tmp_path / "jobs.db"))
    assert said.split() == ["Pending", "sqlite"]


def test_backend_without_its_extra_says_what_to_install(bare: Environment, tmp_path: Path) -> None:
    code = f"""
import storebridge
try:
    storebridge.open_database({f"lmdb:{tmp_path}/jobs"!r})
except storebridge.BackendUnavailableError as error:
    print(error)
"""
    assert "pip install 'storebridge[lmdb]'" in bare.python(code)


def test_nothing_needs_more_than_it_requires(bare: Environment, wheel: Path) -> None:
    """Every module that no extra is for is imported where no extra is installed."""
    modules = modules_of(wheel, "")
    assert {"storebridge.opening", "storebridge_sqlite", "storebridge_memory"} <= set(modules)
    bare.python(IMPORT_ALL.format(modules=modules))


@pytest.mark.parametrize("extra", ["aiotinydb", "cli", "lmdb", "testing", "tinydb"])
def test_extra_installs_what_its_modules_need(wheel: Path, tmp_path: Path, extra: str) -> None:
    """Every module that an extra is for is imported where just that one is installed."""
    environment = Environment(tmp_path / "venv")
    environment.install(wheel)
    environment.borrow(requirements_of(extra))
    modules = modules_of(wheel, extra)
    assert modules
    environment.python(IMPORT_ALL.format(modules=modules))


def test_every_entry_point_is_there(wheel: Path, tmp_path: Path) -> None:
    """With all extras every entry point loads, and the command runs."""
    environment = Environment(tmp_path / "venv")
    environment.install(wheel)
    environment.borrow([r for extra in ("cli", "lmdb", "testing") for r in requirements_of(extra)])
    groups = {
        group: list(entries)
        for group, entries in entry_points_of(wheel).items()
        if group != "DEFAULT"
    }
    assert set(groups) == {"console_scripts", "storebridge.backends", "pytest11"}
    environment.python(f"""
from importlib.metadata import entry_points
for group, names in {groups!r}.items():
    for name in names:
        loaded = next(iter(entry_points(group=group, name=name))).load()
        assert group != "storebridge.backends" or loaded.name == name
""")
    said = run([str(environment.bin / "storebridge"), "--help"], cwd=tmp_path)
    assert "Usage: storebridge" in said


class TestToy:
    """A backend that is a distribution of its own, made as CONTRIBUTING tells."""

    @pytest.mark.attack
    def test_conformance(self, toy: Environment) -> None:
        """The shipped suite, on the installed backend: nothing is skipped but what its traits
        exclude.
        """
        source = toy.folder.parent / "source"
        command = [str(toy.bin / "python"), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
        said = run([*command, "tests"], cwd=source)
        assert re.search(r"\d{2,} passed", said)
        skipped = re.findall(r"^SKIPPED .*?: (.*)$", said, re.MULTILINE)
        lacks = {f"trait {name}: no" for name in ("Compactor", "Loader", "Versioned")}
        assert set(skipped) == {"trait processes: one", *lacks}

    def test_by_configuration(self, toy: Environment, tmp_path: Path) -> None:
        """A service is switched to it by a variable; a bare path by its suffix, and an existing
        file by its content.
        """
        code = """
from storebridge import Execution, Job, ExecutionStore, open_job_store
with open_job_store() as jobs:
    executions = ExecutionStore(jobs.database)
    with jobs.database.transaction():
        job = jobs.create(Job(name=f"n{jobs.count()}", labels={"team": "lab"}))
        executions.create(Execution(job_id=job.id))
    found = jobs.find(labels="team=lab")
    print(jobs.database.location.backend.name, jobs.counts()["Pending"], len(found))
"""
        bare_path, renamed = tmp_path / "jobs.toy", tmp_path / "renamed"
        assert toy.python(code, JOB_STORE_PATH=f"toy:{bare_path}").split() == ["toy", "1", "1"]
        assert toy.python(code, JOB_STORE_PATH=str(bare_path)).split() == ["toy", "2", "2"]
        bare_path.rename(renamed)
        assert toy.python(code, JOB_STORE_PATH=str(renamed)).split() == ["toy", "3", "3"]
        fresh = tmp_path / "fresh.toy"
        assert toy.python(code, JOB_STORE_PATH=str(fresh)).split() == ["toy", "1", "1"]

    def test_is_listed(self, toy: Environment) -> None:
        """Whoever asks for a backend that there is not is told of it."""
        said = toy.python("""
import storebridge
try:
    storebridge.open_database("nosuch:x")
except storebridge.UnknownBackendError as error:
    print(error)
""")
        assert said.rstrip().endswith(", toy")
