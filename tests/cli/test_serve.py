"""`stateroom serve`: what it refuses, and a server in a process of its own that ends at Ctrl-C."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Run

TOKEN = "w" * 40


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN} write name=ann\n{'r' * 40}\n")
    file.chmod(0o600)
    return str(file)


Start = Callable[..., tuple[str, "subprocess.Popen[str]"]]


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Start a server, and give its address and process."""
    processes = []

    def begin(*options: str) -> tuple[str, "subprocess.Popen[str]"]:
        command = [sys.executable, "-m", "stateroom", "--url", url, "--json", "serve", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        return json.loads(line)["address"], process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "0.0.0.0:0"], "--token-file"),
        (["--listen", "[::]:0"], "--token-file"),
        (["--listen", "example.com:80"], "--token-file"),
        (["--listen", "0.0.0.0:0", "--token-file", "TOKENS"], "--tls-cert"),
        (["--behind-proxy"], "--token-file"),
        (["--listen", "8700"], "HOST:PORT"),
        (["--listen", "localhost:x"], "HOST:PORT"),
        (["--listen", "localhost:70000"], "HOST:PORT"),
        (["--tls-cert", "cert.pem"], "--tls-key"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "cannot be read"),
        (["--prefix", "state"], "/state"),
        (["--prefix", "/a?b"], "/state"),
        (["--token-file", "nowhere"], "cannot be read"),
    ],
)
def test_what_is_not_safe_or_makes_no_sense_is_refused(
    run: Run, token_file: str, options: list[str], words: str
) -> None:
    ran = run("serve", *(token_file if option == "TOKENS" else option for option in options))
    assert ran.code == 2
    assert words in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    assert run("serve", "--listen", "127.0.0.1:0", url=str(tmp_path / "none.db")).code == 1
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends_cleanly(start: Start, number: signal.Signals) -> None:
    address, process = start()
    assert httpx.get(f"{address}healthz").json() == {"status": "ok"}
    with httpx.stream("GET", f"{address}api/v1/feed", headers={"accept": "text/event-stream"}, timeout=30) as stream:
        assert next(stream.iter_lines()).startswith("retry")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_an_address_in_use_is_told(start: Start, run: Run) -> None:
    address, _ = start()
    port = address.rsplit(":", 1)[1].strip("/")
    ran = run("serve", "--listen", f"127.0.0.1:{port}")
    assert (ran.code, "cannot listen" in ran.err) == (1, True)


def test_it_changes_for_a_token_that_may_and_not_when_read_only(start: Start, token_file: str, url: str) -> None:
    path = "api/v1/instances/order-17/cancel"
    headers = {"authorization": f"Bearer {TOKEN}"}
    address, _ = start("--token-file", token_file, "--read-only")
    assert httpx.post(address + path, headers=headers).status_code == 403
    address, _ = start("--token-file", token_file)
    assert httpx.post(address + path).status_code == 403
    assert httpx.post(address + path, headers=headers).status_code == 200


def test_behind_a_proxy_nobody_reads_without_a_token(start: Start, token_file: str) -> None:
    address, _ = start("--token-file", token_file, "--behind-proxy", "--prefix", "/state")
    assert address.endswith("/state/")
    forged: dict[str, Any] = {"headers": {"x-forwarded-for": "127.0.0.1"}}
    assert httpx.get(f"{address}api/v1/instances").status_code == 401
    assert httpx.get(f"{address}api/v1/instances", **forged).status_code == 401
    headers = {"authorization": f"Bearer {TOKEN}", "x-forwarded-for": "192.0.2.9"}
    for base in (address, address.replace("/state/", "/")):  # a proxy may take the prefix away, or not
        assert len(httpx.get(f"{base}api/v1/instances", headers=headers).json()["items"]) == 2
