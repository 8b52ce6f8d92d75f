"""Standard streams that are full, closed or ASCII; interrupts; and which exit code what gets."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import stateroom
from stateroom import Instance
from stateroom.cli import app as application
from stateroom.cli import main
from stateroom.cli.wording import reworded
from stateroom.errors import InvalidArgument

from .conftest import Run


def shell(url: str, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = f"'{sys.executable}' -m stateroom --url '{url}' {words}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["instance list", "--json instance list", "docs --list", "--version", "--help"])
def test_a_full_output_is_one_line(url: str, words: str) -> None:
    ran = shell(url, f"{words} > /dev/full")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "No space left" in ran.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(url: str, closed: str) -> None:
    ran = shell(url, f"instance list {closed}")
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = shell(url, f"instance delete order-18 --yes {closed}")
    assert (ran.returncode, ran.stderr) == (0, "")
    with stateroom.open(url) as store:
        assert store.check() == []
        assert store.instances.count() == 1


@pytest.mark.parametrize("form", ["", "--json"])
def test_an_ascii_output_gets_everything(url: str, form: str) -> None:
    with stateroom.open(url) as store:
        store.instances.put(Instance("\u017c\U0001f600", "w"))
    ran = shell(url, f"{form} instance list", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\\u017c" in ran.stdout
    ran = shell(url, f"{form} instance show \u017c\u017c", PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("words", [["feed", "tail", "-f", "-n", "1"], ["execution", "events", "order-17/charge", "-f"]])
def test_an_interrupt_ends_with_130_and_no_traceback(url: str, words: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stateroom", "--url", url, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "")


def test_an_interrupt_anywhere_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stateroom, "open", interrupted)
        for words in ("instance", "list"), ("check",), ("doctor",), ("feed", "read"), ("retention", "plan"), ("stats",):
            ran = run(*words)
            assert (ran.code, ran.out, ran.err) == (130, "", "")
    monkeypatch.setattr(application, "hoist", interrupted)
    assert main(["stats"]) == 130


@pytest.mark.parametrize("words", [("--version",), ("-V",)])
def test_the_version(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).lines == [f"stateroom {stateroom.__version__}"]


@pytest.mark.parametrize("words", [("-h",), ("instance", "-h"), ("instance", "list", "-h")])
def test_short_help(run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: stateroom" in ran.out


@pytest.mark.parametrize("words", [[], ["instance"]])
def test_nothing_after_a_noun_shows_the_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    ran = capsys.readouterr()
    assert ran.err == ""
    assert "Usage: stateroom" in ran.out


def test_completion_is_there(url: str) -> None:
    script = shell(url, "--show-completion bash")
    completed = shell(url, "", _STATEROOM_COMPLETE="complete_bash", COMP_WORDS="stateroom inst", COMP_CWORD="1")
    assert "instance" in completed.stdout.split(), (completed.stderr, script.stderr)


def test_what_is_not_typed_is_no_usage(run: Run, tmp_path: Path) -> None:
    assert run("instance", "list", url="nonsense://x").code == 2
    assert run("instance", "list", url=str(tmp_path)).code == 2
    (tmp_path / "other.db").write_bytes(b"no database" * 1000)
    assert run("instance", "list", url=str(tmp_path / "other.db")).code == 1
    assert application.typed(InvalidArgument("x", what="id"))
    assert not application.typed(InvalidArgument("no such role", what="url", outside=True))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write everything")
def test_a_file_that_may_not_be_written_is_read(run: Run, url: str) -> None:
    Path(url).chmod(stat.S_IRUSR)
    ran = run("instance", "list")
    assert ran.code == 1
    assert "--read-only" in ran.err
    assert run("--read-only", "instance", "list").code == 0


def test_a_server_that_refuses_the_role_is_no_usage(run: Run) -> None:
    postgres = pytest.importorskip("stateroom.testing.postgres")
    with postgres.fresh_schema() as server:
        head, _, options = server.partition("?")
        wrong = f"{head.rpartition('/')[0]}/no_such_database_here?{options}"
        ran = run("instance", "list", url=wrong)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert run("instance", "list", url=f"{server}&nonsense=1").code == 2


@pytest.mark.parametrize(
    "words",
    [("instance", "list", "--status", "bogus"), ("--namespace", "x" * 65, "stats"), ("--namespace", "", "stats")],
)
def test_messages_speak_of_options(run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert ran.code == 2
    assert "--status" in ran.err or "--namespace" in ran.err
    assert "status_in" not in ran.err


def test_an_absent_database_names_the_option(run: Run, tmp_path: Path) -> None:
    ran = run("stats", url=str(tmp_path / "absent.db"))
    assert ran.code == 1
    assert "create=" not in ran.err
    assert reworded("see docs/operate/retention.md") == "see `stateroom docs operate/retention`"
