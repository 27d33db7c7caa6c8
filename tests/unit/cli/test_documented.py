"""Every command is documented, in its help and in the README."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from storebridge.backends import BUILTIN, backend_named
from storebridge.cli.app import SECTIONS, cli
from storebridge.errors import BackendUnavailableError
from storebridge.location import OPTIONS

ROOT = Path(__file__).parents[3]


def _leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _leaves(inner, f"{path} {name}")
    else:
        yield path, command


COMMANDS = dict(_leaves(cli, "storebridge"))


def test_the_help_shows_every_command() -> None:
    shown = {command.name for commands in SECTIONS.values() for command in commands}
    assert shown == set(cli.commands)
    assert len(COMMANDS) >= 22


@pytest.mark.parametrize("path", COMMANDS)
def test_help(path: str) -> None:
    command = COMMANDS[path]
    text = command.help or ""
    assert not re.search(r"\ba [aeio]", text), "an article"
    assert len(text.split("Example:")[0]) > 20, "says nothing"
    assert re.search(rf"^  .*{path} ?", text.partition("Example:")[2], re.MULTILINE), "no example"
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.help, parameter.name


@pytest.mark.parametrize("path", COMMANDS)
def test_readme(path: str) -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("\n## Command line\n")[2].partition("\n## ")[0]
    assert re.search(rf"`{path}[ `]", section), f"README.md says nothing of {path}"


@pytest.mark.parametrize("path", ["storebridge", *COMMANDS])
def test_examples_can_be_parsed(path: str) -> None:
    """Each example names options that there are."""
    command = COMMANDS.get(path, cli)
    examples = (command.help or "").partition("Example:")[2]
    for line in re.findall(rf"{path} ([^|\n]*)", examples):
        known = {opt for parameter in command.params for opt in parameter.opts} | {"--help"}
        if path != "storebridge":
            assert set(re.findall(r"(?<=\s)--[a-z-]+", " " + line)) <= known


def test_readme_names_every_option_of_a_location() -> None:
    section = (
        (ROOT / "README.md").read_text().partition("\n## Configuration\n")[2].partition("| ")[0]
    )
    wanted = set(OPTIONS)
    for name, builtin in BUILTIN.items():
        with contextlib.suppress(BackendUnavailableError):
            wanted |= set(backend_named(name).extra_options)
        # Options that are not a backend's own, but those of a library, stand in its README.
        section += (ROOT / "backends" / builtin.module / "README.md").read_text()
    assert {option for option in wanted if f"`{option}`" not in section} == set()
