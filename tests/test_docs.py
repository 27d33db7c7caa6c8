"""What is written about the project holds: code runs, links lead somewhere, names are explained."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import storebridge
from benchmarks import readme
from storebridge import configuration
from storebridge.driver import backend, contract

TOP = Path(__file__).resolve().parents[1]
TOY = TOP / "tests" / "packaging" / "toy_backend"
RUNNABLE = [TOP / "README.md", *sorted((TOP / "backends").glob("*/README.md"))]
MADR = ("Context", "Options", "Outcome", "Consequences")
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}

_block = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_file_block = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_link = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_variable = re.compile(r"`([A-Z][A-Z_]*[A-Z])`")


def committed() -> list[Path]:
    """The project's files: what git knows, or, outside of a clone, whatever is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        found = [TOP / name for name in listed.stdout.split("\0") if name]
    else:
        found = [path for path in TOP.rglob("*") if path.relative_to(TOP).parts[0] != ".venv"]
    return [path for path in found if path.is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in committed():
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(TOP), data.decode()


def documents() -> list[Path]:
    return [path for path in committed() if path.suffix == ".md"]


def blocks(path: Path) -> list[str]:
    return [code for language, code in _block.findall(path.read_text()) if language == "python"]


EXAMPLES = [(path, code) for path in RUNNABLE for code in blocks(path)]


@pytest.mark.parametrize(
    ("path", "code"), EXAMPLES, ids=[f"{p.parent.name}/{p.name}" for p, _ in EXAMPLES]
)
def test_example_runs(path: Path, code: str, tmp_path: Path) -> None:
    """Every piece of Python in the READMEs runs as it stands, in an empty folder, and warns of
    nothing.
    """
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_readme_has_examples() -> None:
    assert any(path.name == "README.md" and path.parent == TOP for path, _ in EXAMPLES)


def test_the_toy_is_what_is_told() -> None:
    """ "Write a backend" shows each file of the toy as it is: the one that the tests install."""
    shown = dict(_file_block.findall((TOP / "CONTRIBUTING.md").read_text()))
    names = [path.relative_to(TOY) for path in committed() if path.is_relative_to(TOY)]
    there = {str(name): (TOY / name).read_text() for name in names}
    assert shown == {name: text for name, text in there.items() if text}


def test_figures_are_those_of_the_newest_record() -> None:
    """What the README and its pictures say of speed is what the newest record there is yields, and
    there is a place for it."""
    text, newest = readme.README.read_text(encoding="utf-8"), readme.newest()
    for path, content in (readme.drawn(newest, text) if newest else {}).items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: draw it again"
    assert readme.rewritten(text, {"choosing": "", "speed": ""}) != text


def test_relative_links_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(TOP)}: {target}"
        for path in documents()
        for target in _link.findall(path.read_text())
        if "://" not in target and not _resolves(path, target)
    ]
    assert broken == []


def _resolves(path: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    found = path.parent / name if name else path
    if not found.exists():
        return False
    return not anchor or anchor in _anchors(found)


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_public_names_are_explained() -> None:
    """Everything exported has a docstring of its own, where it can have one."""
    missing = []
    for name in storebridge.__all__:
        thing = getattr(storebridge, name)
        if isinstance(thing, type) or callable(thing):
            if not (thing.__doc__ or "").strip():
                missing.append(name)
            missing += _methods_without(thing, name) if isinstance(thing, type) else []
    assert missing == []


def _methods_without(cls: type, name: str) -> list[str]:
    methods = {
        attribute: value
        for attribute, value in vars(cls).items()
        if not attribute.startswith("_") and (callable(value) or isinstance(value, property))
    }
    return [
        f"{name}.{each}" for each, value in methods.items() if not (value.__doc__ or "").strip()
    ]


@pytest.mark.parametrize("module", [contract, backend], ids=lambda module: module.__name__)
def test_contract_is_explained(module: ModuleType) -> None:
    """Every class, function and method of the contract says what it promises."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    missing = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert missing == []


def test_variables_of_the_readme_are_those_that_are_read() -> None:
    """Configuration reads the variables that the README names, all of them and no others."""
    table = [
        line for line in (TOP / "README.md").read_text().splitlines() if line.startswith("| `")
    ]
    named = {name for line in table for name in _variable.findall(line.split("|")[1])}
    assert named == set(_read_variables())


class Recorder(dict[str, str]):
    """An environment that notes what is asked of it."""

    def __init__(self, given: dict[str, str]) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)


def _read_variables() -> Iterator[str]:
    for role in ("JOB", "EXECUTION"):
        environment = Recorder({"STOREBRIDGE_DIR": "/nowhere", "NODE_ID": "node"})
        configuration.location_from_environment(role, environ=environment)
        configuration.retention_from_environment(role, environ=environment)
        yield from environment.asked


HOME = (
    "/"
    + r"(?:home|Users)/(?!\.)[a-z]|(?<![\w.])/"
    + r"root\b|/"
    + r"work(?:space)?s?/(?:main|shared|src)"
)
REGISTRY = (
    r"(?:pypi|hosted|npmjs|crates|debian|wheels)"
    + r"\.(?:org|com|io|net)|(?:proxy|sum)\."
    + "golang"
)
INDEX = "index" + r"[-_]url|extra-" + r"index|find-" + r"links"


@pytest.mark.parametrize("pattern", [HOME, REGISTRY, INDEX], ids=["path", "registry", "index"])
def test_no_file_knows_the_machine_that_it_was_written_on(pattern: str) -> None:
    """No path of somebody's folders, no registry and no index: who builds this has their own."""
    search = re.compile(pattern)
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if search.search(line)
    ]
    assert found == []


def adrs() -> list[Path]:
    return sorted((TOP / "adr").glob("[0-9]*.md"))


def test_decisions_are_recorded_in_form() -> None:
    """MADR: a numbered title, a status, and each of its sections."""
    assert adrs()
    for path in adrs():
        text = path.read_text()
        number = path.name.split("-")[0]
        assert re.match(rf"# {number}[.:]? \S", text), f"{path.name}: its title"
        assert re.search(r"^(- )?Status: \w", text, re.MULTILINE), f"{path.name}: its status"
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        for section in MADR:
            assert any(section.lower() in heading.lower() for heading in headings), (
                f"{path.name}: no section {section}"
            )
        assert len(text.splitlines()) <= 100, f"{path.name}: too long for one decision"


def test_decisions_are_listed() -> None:
    """The index names every decision, once, with its title, and nothing else."""
    listed = re.findall(r"\[([^\]]+)\]\((\d{4}-[^)]+\.md)\)", (TOP / "adr/README.md").read_text())
    assert [name for _, name in listed] == [path.name for path in adrs()]
    for title, name in listed:
        first = (TOP / "adr" / name).read_text().splitlines()[0]
        assert title in first, f"{name}: listed as {title!r}"


def test_changelog_keeps_its_form() -> None:
    """Keep a Changelog: unreleased first, then versions with dates; only its own sections."""
    text = (TOP / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    assert "keepachangelog.com" in text
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version), version
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= CHANGES
