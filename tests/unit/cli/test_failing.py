"""Bad input: one line on stderr that says what to do, and the exit code."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from storebridge import JobStore, open_database

Run = Callable[..., Result]
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def one_line(result: Any) -> str:
    text: str = result.stderr
    assert text.startswith("storebridge: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "Traceback" not in text
    return text


USAGE = [
    (("frobnicate",), "frobnicate"),
    (("info", "--frobnicate", "x.db"), "--frobnicate"),
    (("info",), "JOB_STORE_PATH"),
    (("info", "nodb:///x"), "no backend is called 'nodb'"),
    (("info", "x.db?durability=fast"), "accepted are full, relaxed, off"),
    (("info", "x.db", "-l", "y.db"), "give LOCATION once"),
    (("demo", "--backend", "nodb"), "no backend is called 'nodb'"),
    (("info", "memory:"), "memory"),
    (("info", "tinydb:///none.json"), "no TinyDB database there yet"),
    (("info", "mysql+pymysql://me:secret@host/db"), "mysql"),
    (("info", "sqlite://me:secret@host/x.db"), "***"),
    (("jobs", "list", "-l", "x.db", "me:secret"), "unexpected"),
]


@pytest.mark.parametrize(("command", "says"), USAGE, ids=[" ".join(c) for c, _ in USAGE])
def test_usage(command: tuple[str, ...], says: str, run: Run) -> None:
    result = run(*command)
    assert result.exit_code == 2
    text = one_line(result)
    assert says in text
    assert "secret@" not in text


def test_a_server_that_does_not_answer(run: Run) -> None:
    result = run("info", "postgresql+psycopg://me:secret@127.0.0.1:1/db?connect_timeout=5")
    assert result.exit_code == 1
    text = one_line(result)
    assert "127.0.0.1" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"JOB_STORE_PATH": "x.db", "STORE_DURABILITY": "fast"}, "STORE_DURABILITY='fast'"),
        ({"JOB_STORE_PATH": "x.db", "JOB_STORE_TYPE": "nodb"}, "nodb"),
        ({"EXECUTION_STORE_PATH": "a.db", "COMPUTE_STORE_PATH": "b.db"}, "COMPUTE_STORE_PATH"),
        ({"STOREBRIDGE_DIR": "/nowhere"}, "NODE_ID"),
    ],
)
def test_variables(variables: dict[str, str], says: str, run: Run) -> None:
    result = run("counts", **variables)
    assert result.exit_code == 2
    assert says in one_line(result)


FILES: dict[str, tuple[Callable[[Path], object], int]] = {
    "a folder": (lambda path: (path / "inner").mkdir(parents=True), 2),
    "text": (lambda path: path.write_text("hello"), 2),
    "of another program": (lambda path: _foreign(path), 2),
    "cut off": (lambda path: _cut(path), 1),
    "no folder to be in": (lambda path: None, 2),
}


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table job (id text)")
    connection.close()


def _cut(path: Path) -> None:
    from storebridge import Job, open_job_store

    with open_job_store(f"sqlite:{path}") as jobs:
        jobs.create(Job())
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("command", ["counts", "check", "repair", "recount"])
def test_files(
    what: str, command: str, tmp_path: Path, run: Run, fingerprint: Callable[[Path], Any]
) -> None:
    make, code = FILES[what]
    path = tmp_path / "x.db"
    make(path)
    before = fingerprint(tmp_path)
    result = run(command, str(path))
    assert result.exit_code == code
    assert "x.db" in one_line(result)
    assert fingerprint(tmp_path) == before


def test_ids(sample: Any, run: Run) -> None:
    where = ("-l", sample.location)
    for command in (("jobs", "show", "j-"), ("jobs", "delete", "j-"), ("get", "job", "j-")):
        ambiguous = run(*command, *where)
        assert ambiguous.exit_code == 1
        assert "may be j-00, j-11" in one_line(ambiguous)
    for command in (("jobs", "show", "x"), ("jobs", "history", "x"), ("get", "job", "x")):
        missing = run(*command, *where)
        assert missing.exit_code == 1
        one_line(missing)
    assert run("get", "job", "j-00", "2", *where).exit_code == 2
    assert run("get", "job-history", "j-00", "two", *where).exit_code == 2
    assert "there are: " in one_line(run("keys", "nope", *where))
    assert run("jobs", "list", "--state", "Nope", *where).exit_code == 2
    assert run("jobs", "list", "--labels", "a in ((", *where).exit_code == 2
    assert run("jobs", "list", "--created-from", "yesterday", *where).exit_code == 2
    assert run("jobs", "list", "--cursor", "x", *where).exit_code == 2


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, run: Run) -> None:
    with open_database(f"sqlite:{tmp_path}/jobs.db") as database:
        JobStore(database)
    result = run("executions", "set-state", "e", "Failed", "-l", f"{tmp_path}/jobs.db")
    assert result.exit_code == 2
    assert "stores: job" in one_line(result)
    assert "execution" not in run("tables", f"{tmp_path}/jobs.db").stdout


def _program(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


_WITHOUT = (
    "import sys; name = sys.argv.pop(1); sys.modules[name] = None;"
    "from storebridge.cli import main; sys.exit(main())"
)


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_the_extra(name: str) -> None:
    done = _program(_WITHOUT, name, "--help")
    assert done.returncode == 2
    assert f"needs {name}: pip install 'storebridge[cli]'" in one_line(done)


def test_without_an_engine(tmp_path: Path) -> None:
    done = _program(_WITHOUT, "lmdb", "demo", "--backend", "lmdb", "--keep", str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'storebridge[lmdb]'" in one_line(done)
    assert _program(_WITHOUT, "lmdb", "backends").returncode == 0


def test_a_bug_is_one_line_too(sqlite: Any) -> None:
    code = (
        "import sys; from storebridge import Database;"
        "Database.counts = lambda *_: 1 // 0;"
        "from storebridge.cli import main; sys.exit(main())"
    )
    done = _program(code, "counts", sqlite.location)
    assert (done.returncode, "unexpected ZeroDivisionError" in one_line(done)) == (1, True)
    shown = _program(code, "--traceback", "counts", sqlite.location)
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(sqlite: Any, closed: str) -> None:
    """Without a stdout or stderr nothing is said, and the exit code tells."""
    program = f"{sys.executable} -m storebridge"
    for command, code in ((f"counts {sqlite.location}", 0), (f"counts {sqlite.folder}/none", 2)):
        line = f"{program} {command} {closed}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("of_bolt", [False, True])
def test_a_closed_pipe_is_quiet(sqlite: Any, tmp_path: Path, of_bolt: bool) -> None:
    command = [sys.executable, "-m", "storebridge", "keys", "job", "-l", sqlite.location]
    if of_bolt:
        with open_database(f"bolt:{tmp_path}/jobs.bolt") as database:
            JobStore(database)
        command = [*command[:3], "bolt", "pages", f"{tmp_path}/jobs.bolt"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait(timeout=30) == 1


def test_ctrl_c_is_quiet_and_takes_the_node_along(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "storebridge", "demo", "--keep", str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        # A run in the background has Ctrl-C switched off, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        node = next(line.split()[-1] for line in process.stdout if line.startswith("started"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors.strip() == ""
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(node), 0)


def test_a_full_folder_is_not_used_for_the_demo(tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine").touch()
    result = run("demo", "--keep", str(tmp_path))
    assert result.exit_code == 2
    assert "is not empty" in one_line(result)


def test_output_in_a_narrow_encoding(tmp_path: Path) -> None:
    from storebridge import Job, open_job_store

    with open_job_store(f"sqlite:{tmp_path}/x.db") as jobs:
        jobs.create(Job(name="grüße 😀"))
    done = subprocess.run(
        [sys.executable, "-m", "storebridge", "jobs", "list", "-l", f"{tmp_path}/x.db"],
        capture_output=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "latin-1"},
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert b"gr\xfc\xdfe \\U0001f600" in done.stdout


def test_a_full_disk_is_one_line(sqlite: Any) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "storebridge", "counts", sqlite.location],
            stdout=full,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert "No space left" in one_line(done)


def test_help_is_quick() -> None:
    """Nothing that help does not need is imported."""
    code = (
        "import sys; from storebridge.cli.app import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    modules = set(_program(code).stderr.split())
    assert not {name for name in modules if name.startswith(("rich", "storebridge_"))}
    assert not modules & {"sqlite3", "lmdb", "asyncio"}


def test_no_sqlite_shell_for_lmdb(tmp_path: Path, run: Run) -> None:
    result = run("shell", f"lmdb:{tmp_path}/none")
    assert result.exit_code == 2
    assert "storebridge tables, keys, get" in one_line(result)
