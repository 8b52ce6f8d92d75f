"""TLS with an authority of one's own, and certificates on both sides."""

import os
import socket

import pytest

from stateroom.codec import KeyRing
from stateroom.errors import Unavailable, Undecodable
from stateroom.node import TLS

pytest.importorskip("cryptography")

from .certificates import Authority


def ring_of(name):
    """A key ring of one key."""
    return KeyRing({name: os.urandom(32)}, current=name, naming=os.urandom(32))


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def test_values_go_over_tls(alone, authority):
    a = alone.node("a", tls=authority.issue("a", "127.0.0.1"))
    b = alone.node("b", tls=TLS(**authority.issue("b", "127.0.0.1")))
    assert a.address.startswith("https://127.0.0.1:")
    data = os.urandom(3 << 20)
    a.results.put("d", "x", data)
    a.results.put("d", "y", {"k": 1})
    assert b.fetch("d", "x") == data
    assert b.fetch("d", "y") == {"k": 1}
    assert b.clear_everywhere("d") == {"a": 2, "b": 2}


def test_with_tls_it_may_listen_anywhere(alone, authority):
    node = alone.node("a", tls=authority.issue("a", "127.0.0.1"), listen="0.0.0.0:0", advertise="127.0.0.1:7")
    assert node.address == "https://127.0.0.1:7"


def refused(alone, a, b):
    a.results.put("d", "x", 1)
    with pytest.raises(Unavailable) as caught:
        b.fetch("d", "x")
    assert not b.results.has("d", "x")
    return caught.value.fields["tried"]["a"]


def test_a_certificate_of_a_stranger_is_refused(alone, authority, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    a = alone.node("a", tls=other.issue("a", "127.0.0.1"))
    b = alone.node("b", tls=authority.issue("b", "127.0.0.1"))
    assert "certificate" in refused(alone, a, b)


def test_a_certificate_for_another_address_is_refused(alone, authority):
    a = alone.node("a", tls=authority.issue("a", "127.0.0.9"))
    b = alone.node("b", tls=authority.issue("b", "127.0.0.1"))
    assert "certificate" in refused(alone, a, b)


def test_both_show_certificates(alone, authority):
    a, b = (alone.node(name, tls={**authority.issue(name, "127.0.0.1"), "mutual": True}) for name in "ab")
    a.results.put("d", "x", 1)
    assert b.fetch("d", "x") == 1


def test_who_shows_a_strangers_certificate_is_refused(alone, authority, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    a = alone.node("a", tls={**authority.issue("a", "127.0.0.1"), "mutual": True})
    b = alone.node("b", tls={**other.issue("b", "127.0.0.1"), "ca": authority.ca})
    refused(alone, a, b)


def test_a_node_without_tls_does_not_reach_one_with(alone, authority):
    a, b = alone.node("a", tls=authority.issue("a", "127.0.0.1")), alone.node("b")
    refused(alone, a, b)


def test_a_handshake_that_does_not_come_is_given_up(alone, authority, monkeypatch):
    from stateroom.node import listening

    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 0.2)
    node = alone.node("a", tls=authority.issue("a", "127.0.0.1"))
    host, port = node.address.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        assert opened.recv(100) == b""


def test_encrypted_stores_exchange_what_the_other_can_open(alone, tmp_path):
    ring, other = ring_of("k1"), ring_of("k2")
    a = alone.node("a", local=alone.local("a", key_ring=ring))
    b = alone.node("b", local=alone.local("b", key_ring=other))
    plain = alone.node("c")
    for id, value in (("small", {"k": "v"}), ("large", b"z" * 300_000)):
        a.results.put("d", id, value)
        assert b.fetch("d", id) == value
        assert plain.fetch("d", id, node="b") == value
    for name in "ab":
        assert b"z" * 1000 not in (tmp_path / f"{name}.db").read_bytes()


def test_what_a_node_cannot_open_it_names(alone, tmp_path):
    with alone.local("sealed", key_ring=ring_of("k1")) as store:
        store.results.put("d", "x", {"k": "v"})
        digest = store.results.find("d", "x").digest
    alone._stores.pop()
    lost = alone.open(str(tmp_path / "sealed.db"), key_ring=ring_of("k2"))
    alone._stores.remove(lost)  # it cannot be checked without the key
    b = alone.node("b")
    a = alone.node("a", local=lost)
    alone.shared.locations.register("d", "x", "a", digest=digest, size=8, form="value")
    with pytest.raises(Unavailable) as caught:
        b.fetch("d", "x")
    assert "k1" in caught.value.fields["tried"]["a"]
    a.stop()
    alone._nodes.remove(a)
    lost.close()


def test_a_type_that_is_unknown_here_is_kept_and_named(alone):
    from dataclasses import dataclass

    from stateroom.codec import Codec

    @dataclass
    class Order:
        amount: int

    codec = Codec()
    codec.register(Order, name="shop.order")
    a = alone.node("a", local=alone.local("a", codec=codec))
    b = alone.node("b", local=alone.local("b"))
    c = alone.node("c", local=alone.local("c", codec=codec))
    a.results.put("d", "x", Order(5))
    with pytest.raises(Undecodable) as caught:
        b.fetch("d", "x")
    assert "shop.order" in str(caught.value)
    assert b.locate("d", "x") == ("a", "b")
    assert c.fetch("d", "x", node="b") == Order(5)
    a.results.delete("d", "x")
    assert c.results.get("d", "x") == Order(5)
    b.results.delete("d", "x")
