"""Commands that move what a database holds, and compare."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import IncompleteStoreError, Job, JobStore, open_database
from storebridge.testing.stores.base import contents, edit_body
from tests.unit.cli.test_terminal import on_terminal

Run = Callable[..., Result]
Fingerprint = Callable[[Path], dict[str, str]]


@pytest.mark.parametrize("backend", ["bolt", "sqlite", "lmdb", "tinydb"])
def test_migrate_and_verify(
    run: Run, sample: Any, backend: str, tmp_path: Path, fingerprint: Fingerprint
) -> None:
    """A migrated database is verified to hold the same; its source's files are as they were."""
    target = f"{backend}://{tmp_path}/there"
    before = fingerprint(sample.folder)
    trial = json.loads(run("migrate", sample.location, target, "--dry-run", "--json").stdout)
    assert (trial["complete"], trial["dry_run"], trial["added"]) == (False, True, 0)
    assert not (tmp_path / "there").exists()
    done = run("migrate", sample.location, target, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["complete"]
    assert facts["added"] == facts["digest"]["entries"] == trial["digest"]["entries"]
    assert facts["skipped"] == []
    compared = run("verify", sample.location, target, "--json")
    assert compared.exit_code == 0
    assert json.loads(compared.stdout)["digest_b"] == facts["digest"]
    assert fingerprint(sample.folder) == before
    said = run("verify", sample.location, target).stdout
    assert said.splitlines()[-1] == f"equal: {facts['added']} entries"


def test_verify_with_itself(run: Run, sample: Any, tmp_path: Path) -> None:
    """By the same name or another one, a database holds what it holds; so does an export."""
    path = sample.location.split("://")[1]
    for other in (sample.location, path):
        done = run("verify", sample.location, other)
        assert (done.exit_code, done.stderr) == (0, "")
    export = f"{tmp_path}/x.jsonl"
    assert run("export", sample.location, export).exit_code == 0
    assert run("verify", export, export).exit_code == 0


def test_lines_in_a_pipe(run: Run, sqlite: Any, tmp_path: Path) -> None:
    """In a pipe the facts are lines of two cells; of its stages, a line each on stderr."""
    said = run("migrate", sqlite.location, f"bolt://{tmp_path}/x")
    stages = [line.split("\t")[0] for line in said.stderr.splitlines()]
    assert stages == ["checking", "copying", "reading again"]
    cells = [line.split("\t") for line in said.stdout.splitlines()]
    assert {len(line) for line in cells} == {2}
    facts = dict(cells)
    assert (facts["complete"], facts["skipped"]) == ("True", "0")


def test_a_bar_on_a_terminal(sqlite: Any, tmp_path: Path) -> None:
    """On a terminal the stages are shown by a bar, and then the facts."""
    code, shown = on_terminal("migrate", sqlite.location, f"bolt://{tmp_path}/x")
    assert code == 0
    assert re.search(r"copying +[━╸╺]+ +\d+/\d+", shown)
    assert re.search(r"^ +complete +True$", shown, re.MULTILINE)


def test_differences(run: Run, sqlite: Any, tmp_path: Path) -> None:
    """Where two databases differ is told by table and key, with exit code 1."""
    target = f"bolt://{tmp_path}/there"
    run("migrate", sqlite.location, target)
    with open_database(target) as database:
        JobStore(database).delete("j-33")
    told = run("verify", sqlite.location, target)
    assert told.exit_code == 1
    assert "job\tj-33\tmissing in B" in told.stdout
    short = run("verify", sqlite.location, target, "--most", "1").stdout
    assert re.fullmatch(r"and \d more", short.splitlines()[-1])
    told_json = json.loads(run("verify", sqlite.location, target, "--json").stdout)
    assert told_json["differences"][0].keys() == {"table", "key", "what", "a", "b"}


def test_a_target_in_use(run: Run, sqlite: Any, tmp_path: Path) -> None:
    """A target that holds something is refused as a wrong question, and kept when overwritten."""
    target = tmp_path / "other.db"
    with open_database(target) as database:
        JobStore(database).create(Job(id="mine"))
        kept = contents(database)
    refused = run("migrate", sqlite.location, str(target))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "holds the store job" in refused.stderr
    facts = json.loads(run("migrate", sqlite.location, str(target), "--overwrite", "--json").stdout)
    with open_database(facts["replaces"]) as database:
        assert contents(database) == kept
    assert run("verify", sqlite.location, str(target)).exit_code == 0


def test_quarantined(run: Run, sqlite: Any, tmp_path: Path) -> None:
    """Bodies that cannot be read stop a migration, with their key; skipped, they are listed."""
    with open_database(sqlite.location) as database:
        edit_body(JobStore(database), "j-22", lambda body: b"?")
    target = str(tmp_path / "x.bolt")
    trial = run("migrate", sqlite.location, target, "--dry-run", "--json")
    assert (trial.exit_code, json.loads(trial.stdout)["skipped"]) == (
        1,
        [{"table": "job", "key": ["j-22"]}],
    )
    stopped = run("migrate", sqlite.location, target)
    assert stopped.exit_code == 1
    assert "'j-22' in table job" in stopped.stderr
    refused = run("counts", target)
    assert refused.exit_code == 1
    assert "no store yet: `storebridge migrate`" in refused.stderr
    done = run("migrate", sqlite.location, target, "--skip-quarantined")
    assert done.exit_code == 0
    assert "job\tj-22\tleft out" in done.stdout
    assert run("counts", target).exit_code == 0


def test_export_and_import(run: Run, sample: Any, tmp_path: Path) -> None:
    """Through a file or a pipe, and an export can be compared with a database."""
    file = str(tmp_path / "x.jsonl.gz")
    facts = json.loads(run("export", sample.location, file, "--json").stdout)
    assert Path(file).stat().st_size == facts["bytes"]
    assert run("verify", file, sample.location).exit_code == 0
    taken = run("import", file, f"bolt://{tmp_path}/back", "--json")
    assert json.loads(taken.stdout)["digest"] == facts["digest"]
    assert run("verify", f"bolt://{tmp_path}/back", file).exit_code == 0
    assert run("export", sample.location, file).exit_code == 2
    Path(file).write_bytes(Path(file).read_bytes()[:-40])
    refused = run("import", file, str(tmp_path / "none.db"))
    assert refused.exit_code == 1
    assert ", line " in refused.stderr
    assert run("verify", file, sample.location).exit_code == 1
    assert not (tmp_path / "none.db").exists()


def test_pipes(sqlite: Any, tmp_path: Path) -> None:
    """Nothing but the export goes to stdout, and stdin is read as it comes."""
    command = [sys.executable, "-m", "storebridge"]
    export = [*command, "export", sqlite.location, "-"]
    made = subprocess.run(export, capture_output=True, check=True)
    assert made.stderr == b""
    assert {json.loads(line).get("table", "") for line in made.stdout.splitlines()} >= {"job"}
    target = f"lmdb://{tmp_path}/back"
    subprocess.run([*command, "import", "-", target], input=made.stdout, check=True)
    with open_database(sqlite.location) as one, open_database(target) as other:
        assert contents(one) == contents(other)


def test_an_interrupted_export(sqlite: Any, tmp_path: Path) -> None:
    """It leaves nothing that the same command could go on with, and does not say so."""
    code = (
        "import sys; from storebridge.cli import main, transfer;"
        "transfer.export_database = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt);"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "export", sqlite.location, f"{tmp_path}/x.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.strip() == "storebridge: interrupted: nothing is left of it"


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C leaves what the same command goes on with, and says so."""
    source, target = str(tmp_path / "many.db"), f"bolt://{tmp_path}/there"
    with open_database(source + "?durability=off") as database:
        jobs = JobStore(database)
        with database.transaction():
            for number in range(4000):
                jobs.create(Job(id=f"j-{number}", labels={"a": "b", "c": "d"}))
    command = [sys.executable, "-m", "storebridge", "migrate", source, target]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A run in the background has its children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("copying"):
            pass
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.strip() == "storebridge: interrupted: the same command goes on from here"
    with pytest.raises(IncompleteStoreError):
        open_database(target)
    subprocess.run(command, check=True, capture_output=True)
    with open_database(source) as one, open_database(target) as other:
        assert contents(one) == contents(other)
