"""Distributions built from the project, and environments that hold these and little else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

TOP = Path(__file__).resolve().parents[2]


def build(source: Path, out: Path, *targets: str) -> list[Path]:
    """Build with hatchling, which fetches nothing; returns what was made."""
    before = set(out.glob("*"))
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    for target in targets:
        command += ["-t", target]
    run(command, cwd=source)
    return sorted(set(out.glob("*")) - before)


def run(command: list[str], *, cwd: Path, **environment: str) -> str:
    """Run to its end and return what it printed; what it complains of is in the failure."""
    # Nothing of the test's own configuration may reach it.
    inherited = {
        name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=inherited | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, f"{command[:6]}: {done.stdout}"
    return done.stdout


class Environment:
    """A virtual environment with wheels in it, and only those of the test's own packages that it
    is given by name, with all that they require.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.folder = folder
        self.bin = folder / "bin"
        self._packages = next(folder.glob("lib/python*/site-packages"))

    def install(self, *wheels: Path) -> None:
        """Install wheels, without what they require."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
        run([*pip, *quiet, *map(str, wheels)], cwd=self.folder)

    def borrow(self, requirements: Iterable[str]) -> None:
        """Link installed packages that meet these requirements, and what they require in turn."""
        for each in _closure(requirements):
            for top in {path.parts[0] for path in each.files or ()}:
                source, link = Path(str(each.locate_file(top))), self._packages / top
                if top != ".." and source.exists() and not link.exists():
                    link.symlink_to(source)

    def python(self, code: str, **environment: str) -> str:
        """What a piece of Python prints, run in the environment's own folder."""
        command = [str(self.bin / "python"), "-I", "-W", "error", "-c", code]
        return run(command, cwd=self.folder, **environment)


def _closure(requirements: Iterable[str]) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        each = distribution(wanted.name)
        if wanted.name in found:
            continue
        assert wanted.specifier.contains(each.version, prereleases=True), wanted
        found[wanted.name] = each
        for text in each.requires or ():
            further = Requirement(text)
            extras = wanted.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(further)
    return list(found.values())
