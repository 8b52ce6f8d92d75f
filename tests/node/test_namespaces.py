"""Two network namespaces with a link between them that is cut: what a node behind it looks like. Needs root."""

import contextlib
import os
import shutil
import subprocess

import pytest

from stateroom.errors import Unavailable
from stateroom.node import client

from .processes import Process, filled, until

pytest.importorskip("cryptography")

from .certificates import Authority

HERE, THERE = "10.213.77.1", "10.213.77.2"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def beyond():
    """A network namespace behind a link; gives its name."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    name = f"room{os.getpid()}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}t", "netns", name)
        ip("addr", "add", f"{HERE}/30", "dev", f"{name}h")
        ip("link", "set", f"{name}h", "up")
        ip("-n", name, "addr", "add", f"{THERE}/30", "dev", f"{name}t")
        ip("-n", name, "link", "set", f"{name}t", "up")
        yield name
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", f"{name}h")
        ip("netns", "del", name)


def test_a_cut_link(alone, beyond, monkeypatch):
    """Both reach the shared store; only the link between the nodes goes. Nothing is lost, and nothing is believed."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(client, "IDLE_SECONDS", 1.0)
    authority = Authority(alone.folder)
    filled(alone, "there", {"x": "value", "y": os.urandom(3 << 20)})
    files = authority.issue("there", THERE)
    there = Process(
        alone, "there", prefix=("ip", "netns", "exec", beyond), listen=f"{THERE}:7713",
        tls_cert=files["cert"], tls_key=files["key"], tls_ca=files["ca"],
    )  # fmt: skip
    try:
        here = alone.node("here", tls=authority.issue("here", HERE), listen=f"{HERE}:0")
        assert here.fetch("d", "x") == "value"
        ip("link", "set", f"{beyond}h", "down")
        with pytest.raises(Unavailable) as caught:
            here.fetch("d", "y", timeout=30)
        assert list(caught.value.fields["tried"]) == ["there"]
        assert not here.results.has("d", "y")
        # It beats still, for it reaches the shared store: so it clears what it could not be told to clear.
        assert next(node for node in here.nodes() if node.name == "there").alive
        assert here.clear_everywhere("d") == {"here": 1, "there": None}
        ip("link", "set", f"{beyond}h", "up")
        here.register("d", "y", "there")
        with pytest.raises(LookupError):
            until(lambda: fetched(here))
        assert here.locations("d") == {}
    finally:
        there.end()


def fetched(node):
    """Fetch what was cleared: NotFound as soon as the link is there again."""
    try:
        return node.fetch("d", "y", timeout=10)
    except Unavailable:
        return None
