"""Encryption at rest: what opens, what does not, and what the error says."""

import base64
import builtins
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest

from stateroom.codec import Codec, KeyRing
from stateroom.errors import AlreadyExists, Damaged, InvalidArgument, Undecodable, UnsupportedFormat

OLD, NEW, NAMING = b"o" * 32, b"n" * 32, b"d" * 32
BOUND = b"default/instances/order-17"


def ring(current: str = "old", **keys: bytes) -> KeyRing:
    return KeyRing(keys or {"old": OLD}, current=current, naming=NAMING)


def encrypting(**arguments: Any) -> Codec:
    return Codec(key_ring=ring(**arguments))


@pytest.mark.parametrize("data", [b"", b"a", b"\xc1", b"\xc1\x00x", b"\xc1\x01\x03old", bytes(range(256)) * 9])
def test_protected_data_is_revealed_and_hidden(data: bytes) -> None:
    codec = encrypting()
    secret = codec.protect(BOUND, data)
    assert codec.reveal(BOUND, secret) == data
    assert len(data) < 8 or data[:8] not in secret
    assert secret != codec.protect(BOUND, data)
    assert secret[:6] == b"\xc1\x01\x03old"


@pytest.mark.parametrize("data", [b"", b"a", b"\xc1", b"\xc1\x00x", b"\xc1\x01\x03old", b"\xc1\xc1"])
def test_without_a_ring_any_data_comes_back(data: bytes) -> None:
    codec = Codec()
    assert codec.reveal(BOUND, codec.protect(BOUND, data)) == data
    assert encrypting().reveal(BOUND, codec.protect(BOUND, data)) == data


def test_it_is_aes_256_gcm_with_the_head_and_place_authenticated() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    secret = encrypting().protect(BOUND, b"text")
    assert AESGCM(OLD).decrypt(secret[6:18], secret[18:], secret[:6] + BOUND) == b"text"


def test_data_moved_to_another_place_does_not_open() -> None:
    codec = encrypting()
    with pytest.raises(Damaged, match="belongs elsewhere") as caught:
        codec.reveal(b"default/instances/order-18", codec.protect(BOUND, b"text"))
    assert type(caught.value) is Damaged


def test_every_flipped_bit_is_seen() -> None:
    codec = encrypting()
    secret = codec.protect(BOUND, b"some text")
    for bit in range(len(secret) * 8):
        changed = bytearray(secret)
        changed[bit // 8] ^= 1 << bit % 8
        if bit < 8:
            # Without its mark it is no encrypted value: what is left does not decode, or fails the row's checksum.
            assert codec.reveal(BOUND, bytes(changed)) == bytes(changed)
            continue
        if bytes(changed[:2]) == b"\xc1\x00":
            continue
        with pytest.raises(Damaged):
            codec.reveal(BOUND, bytes(changed))


@pytest.mark.parametrize("cut", range(30))
def test_cut_data_is_damaged(cut: int) -> None:
    codec = encrypting()
    secret = codec.protect(BOUND, b"")
    if cut:
        with pytest.raises(Damaged):
            codec.reveal(BOUND, secret[:cut])


def test_a_missing_key_is_named() -> None:
    secret = encrypting().protect(BOUND, b"text")
    with pytest.raises(Undecodable, match="'old'") as caught:
        encrypting(current="new", new=NEW).reveal(BOUND, secret)
    assert caught.value.tag == "old"
    with pytest.raises(Undecodable, match="key_ring=") as caught:
        Codec().reveal(BOUND, secret)
    assert caught.value.tag == "old"


def test_another_key_under_the_same_id_is_damage() -> None:
    secret = encrypting().protect(BOUND, b"text")
    with pytest.raises(Damaged, match="another key under the same id"):
        encrypting(old=NEW).reveal(BOUND, secret)


def test_rotation_reads_the_old_and_writes_the_new() -> None:
    before, after = encrypting(), encrypting(current="new", old=OLD, new=NEW)
    secret = before.protect(BOUND, b"text")
    assert not before.needs_rekey(secret)
    assert after.needs_rekey(secret)
    assert after.reveal(BOUND, secret) == b"text"
    again = after.protect(BOUND, after.reveal(BOUND, secret))
    assert not after.needs_rekey(again)
    assert Codec().needs_rekey(again)
    assert after.needs_rekey(b"plain")
    assert not Codec().needs_rekey(b"plain")
    with pytest.raises(Undecodable, match="'new'"):
        before.reveal(BOUND, again)


def test_digests_are_kept_by_rotation_and_say_nothing_without_the_naming_key() -> None:
    before, after = encrypting(), encrypting(current="new", new=NEW)
    assert before.digest(b"text") == after.digest(b"text") != Codec().digest(b"text")
    assert len(before.digest(b"text")) == len(Codec().digest(b"text")) == 32
    other = Codec(key_ring=KeyRing({"old": OLD}, current="old", naming=OLD))
    assert other.digest(b"text") != before.digest(b"text")


def test_plain_data_can_be_refused() -> None:
    strict = Codec(key_ring=KeyRing({"old": OLD}, current="old", naming=NAMING, plain=False))
    assert strict.reveal(BOUND, strict.protect(BOUND, b"x")) == b"x"
    for plain in (b"x", b"\xc1\x00\xc1"):
        with pytest.raises(Damaged, match="in clear"):
            strict.reveal(BOUND, plain)


def test_a_newer_format_is_named() -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        encrypting().reveal(BOUND, b"\xc1\x07rest")
    assert (caught.value.found, caught.value.supported) == (7, 1)


def test_keys_from_a_function_are_asked_for_once() -> None:
    asked = []

    def fetch(name: str) -> bytes:
        asked.append(name)
        return {"old": OLD, "new": NEW}[name]

    codec = Codec(key_ring=KeyRing(fetch, current="new", naming=NAMING))
    secret = encrypting().protect(BOUND, b"text")
    assert codec.reveal(BOUND, secret) == codec.reveal(BOUND, secret) == b"text"
    assert asked == ["new", "old"]
    with pytest.raises(Undecodable, match="'gone'"):
        codec.reveal(BOUND, encrypting(current="gone", gone=NEW).protect(BOUND, b"text"))


def test_a_function_that_fails_otherwise_comes_through() -> None:
    def fetch(name: str) -> bytes:
        raise ConnectionError("no network")

    with pytest.raises(ConnectionError):
        KeyRing(fetch, current="new", naming=NAMING)


def test_a_file_is_made_read_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    KeyRing.generate(path, "2025")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = Codec(key_ring=KeyRing.from_file(path))
    secret = before.protect(BOUND, b"text")
    KeyRing.rotate(path, "2026")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    after = Codec(key_ring=KeyRing.from_file(path))
    assert after.reveal(BOUND, secret) == b"text"
    assert after.needs_rekey(secret)
    assert b"2026" in after.protect(BOUND, b"")[:8]
    assert before.digest(b"x") == after.digest(b"x")
    with pytest.raises(AlreadyExists):
        KeyRing.generate(path)
    with pytest.raises(AlreadyExists, match="2025"):
        KeyRing.rotate(path, "2025")
    assert sorted(os.listdir(tmp_path)) == ["keys.json"]


def test_an_environment_variable_holds_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    KeyRing.generate(tmp_path / "k")
    monkeypatch.setenv("STATEROOM_KEY_RING", (tmp_path / "k").read_text())
    secret = Codec(key_ring=KeyRing.from_env()).protect(BOUND, b"x")
    assert Codec(key_ring=KeyRing.from_file(tmp_path / "k")).reveal(BOUND, secret) == b"x"
    monkeypatch.setenv("STATEROOM_KEY_RING", str(tmp_path / "k"))
    assert Codec(key_ring=KeyRing.from_env()).reveal(BOUND, secret) == b"x"
    monkeypatch.delenv("STATEROOM_KEY_RING")
    with pytest.raises(InvalidArgument, match="STATEROOM_KEY_RING"):
        KeyRing.from_env()


SECRET = base64.b64encode(OLD).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        SECRET,
        json.dumps({"current": "a", "keys": {"a": SECRET}}),
        json.dumps({"current": "b", "keys": {"a": SECRET}, "naming": SECRET}),
        json.dumps({"current": "a", "keys": {"a": SECRET[:8]}, "naming": SECRET}),
        json.dumps({"current": "a", "keys": {"a": "*" + SECRET}, "naming": SECRET}),
        json.dumps({"current": "a", "keys": [SECRET], "naming": SECRET}),
        json.dumps({"current": 5, "keys": {"a": SECRET}, "naming": SECRET}),
    ],
)
def test_broken_key_rings_are_refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        KeyRing.from_text(text)
    shown = str(caught.value) + repr(caught.value.fields) + repr(caught.value.__cause__)
    assert SECRET[:12] not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        {"keys": {"a": b"short"}},
        {"keys": {"a": "x" * 32}},
        {"keys": {}},
        {"naming": b"short"},
        {"current": ""},
        {"current": "a\n"},
        {"current": "x" * 65},
        {"current": "b"},
    ],
)
def test_bad_keys_are_refused(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {"keys": {"a": OLD}, "current": "a", "naming": NAMING}
    KeyRing(**good)
    with pytest.raises(InvalidArgument):
        KeyRing(**{**good, **arguments})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        KeyRing.from_file(tmp_path / "none.json")


def test_keys_are_neither_shown_nor_pickled() -> None:
    assert "ooo" not in repr(ring())
    assert "old" in repr(ring())
    with pytest.raises(TypeError):
        pickle.dumps(ring())


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InvalidArgument, match=r"stateroom\[crypto\]"):
        ring()
    assert Codec().reveal(BOUND, Codec().protect(BOUND, b"x")) == b"x"


def test_a_codec_with_a_ring_shares_its_registered_types() -> None:
    plain = Codec()
    secret = plain.with_key_ring(ring())

    class Later:
        pass

    plain.register(Later, name="later", encode=lambda value: None, decode=lambda state: Later())
    assert type(secret.decode(secret.encode(Later()))) is Later
    assert plain.key_ring is None
    assert secret.protect(b"", b"x") != b"x"
    assert secret.with_key_ring(None).protect(b"", b"x") == b"x"
