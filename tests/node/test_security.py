"""A node believes nobody without the secret, is not kept busy by strangers, and stores nothing that is not vouched for."""

import gzip
import hashlib
import http.client
import http.server
import json
import logging
import os
import socket
import threading
import time
import traceback
from contextlib import contextmanager, suppress

import pytest

from stateroom.errors import InvalidArgument, NotFound, Unavailable
from stateroom.node import listening, signing
from stateroom.node.secret import Secret
from stateroom.testing.faces import ManualClock

from .conftest import SECRET

VALUE = "/v1/value?dag=d&id=x&digest={digest}&generation=0&known=0"


@pytest.fixture
def target(alone):
    """A node with one value."""
    node = alone.node("a")
    node.results.put("d", "x", b"the value")
    node.digest = hashlib.sha256(b"the value").hexdigest()
    return node


def ask(node, method="GET", path=None, *, headers=None, body=None, signed=True, claimed=None):
    """Send a request, signed for what `claimed` says instead of what is sent."""
    changed = dict(claimed or {})
    path = VALUE.format(digest=node.digest) if path is None else path
    headers = dict(headers or {})
    if signed:
        what = {
            "method": method,
            "target": path,
            "node": node.name,
            "range_": headers.get("range", ""),
            "body": body or b"",
        }
        now = changed.pop("now", time.time())
        secret = Secret(changed.pop("secret", SECRET))
        header, _ = signing.sign(secret, signing.Request(**{**what, **changed}), "test", now)
        headers.setdefault(signing.AUTHORIZATION, header)
    host, port = node.address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), headers
    finally:
        connection.close()


def test_signed_it_is_answered(target):
    status, body, _ = ask(target)
    assert (status, body) == (200, b"the value")
    assert ask(target, headers={"range": "bytes=4-"})[:2] == (206, b"value")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"signed": False}, "unsigned"),
        ({"headers": {signing.AUTHORIZATION: "nonsense"}}, "unsigned"),
        (
            {"headers": {signing.AUTHORIZATION: "time=²³, nonce=x, from=y, mac=z".encode().decode("latin-1")}},
            "unsigned",
        ),
        ({"secret": b"another secret, also 32 bytes long"}, "signature"),
        ({"now": time.time() - 10_000_000}, "clock"),
        ({"now": time.time() + 10_000_000}, "clock"),
        ({"target": "/v1/value?dag=d&id=y"}, "signature"),
        ({"method": "POST"}, "signature"),
        ({"node": "b"}, "signature"),
        ({"range_": "bytes=2-"}, "signature"),
        ({"body": b"swapped"}, "signature"),
    ],
)
def test_what_is_not_believed(target, options, reason):
    own = {name: value for name, value in options.items() if name in ("signed", "headers")}
    status, body, _ = ask(target, **own, claimed={name: options[name] for name in options.keys() - own.keys()})
    assert status == 401
    assert json.loads(body)["code"] == reason
    assert b"the value" not in body


def test_a_swapped_body_is_not_believed(target):
    path, body = "/v1/clear?dag=d", json.dumps({"generation": 0}).encode()
    assert ask(target, "POST", path, body=body)[0] == 200
    assert ask(target, "POST", path, body=json.dumps({"generation": 9}).encode())[0] == 409
    _, _, headers = ask(target, "POST", path, body=body)
    host, port = target.address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("POST", path, body=b'{"generation": 7}', headers=headers)
    assert connection.getresponse().status == 401
    connection.close()


def test_a_request_is_believed_once(target):
    status, _, headers = ask(target)
    assert status == 200
    status, body, _ = ask(target, headers=headers, signed=False)
    assert (status, json.loads(body)["code"]) == (401, "replayed")


def test_nonces_are_forgotten_when_no_clock_would_take_them():
    clock = ManualClock()
    verifier = signing.Verifier(Secret(SECRET), lambda: clock.now().timestamp())
    request = signing.Request("GET", "/", "a")
    header, _ = signing.sign(Secret(SECRET), request, "b", clock.now().timestamp() + 29)
    verifier.verify(header, request)
    for seconds in (10, 30, 18):
        clock.advance(seconds)
        with pytest.raises(signing.Unauthorized) as caught:
            verifier.verify(header, request)
        assert caught.value.reason == "replayed"
    clock.advance(120)
    other, _ = signing.sign(Secret(SECRET), request, "b", clock.now().timestamp())
    verifier.verify(other, request)
    assert len(verifier._seen) == 1
    with pytest.raises(signing.Unauthorized) as caught:
        verifier.verify(header, request)
    assert caught.value.reason == "clock"


def test_no_method_or_path_but_those_that_are_there(target):
    for method in ("PUT", "DELETE", "POST"):
        assert ask(target, method)[0] == 405
    for path in ("/", "/v1", "/v1/value/../../etc/passwd", "//v1/value", "/v1/%76alue/x", "/docs", "/openapi.json"):
        assert ask(target, path=path)[0] in (404, 401)


@pytest.mark.parametrize(
    "query",
    ["dag=d", "dag=d&id=x&digest=y&generation=z&known=0", "dag=d&dag=e&id=x", "a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9",
     "dag=&id=x&digest=y&generation=0&known=0", "dag=%ff&id=x&digest=y&generation=0&known=0"],
)  # fmt: skip
def test_parameters_that_are_none(target, query):
    status, body, _ = ask(target, path=f"/v1/value?{query}")
    assert (status, json.loads(body)["code"]) == (422, "invalid-argument")


@pytest.mark.parametrize(
    "asked", ["bytes=9-", "bytes=0-3", "bytes=-4", "bytes=1-,3-", "items=1-", "bytes=99999999999999999999-"]
)
def test_ranges_that_are_none(target, asked):
    assert ask(target, headers={"range": asked})[0] == 416


def test_a_body_that_is_too_large(target):
    for body, headers in ((b"x" * 100_000, {}), (iter([b"x" * 10_000] * 10), {})):
        try:
            status, _, _ = ask(target, "POST", "/v1/clear?dag=d", body=body, headers=headers, signed=False)
        except (ConnectionError, BrokenPipeError):
            continue
        assert status == 413
    assert ask(target)[0] == 200


def test_headers_that_are_too_large(target):
    try:
        status = ask(target, headers={"x": "y" * 5_000_000})[0]
    except (ConnectionError, http.client.HTTPException):
        status = 400
    assert status in (400, 431)
    assert ask(target)[0] == 200


def connect(node):
    host, port = node.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_who_sends_slowly_is_cut_off(alone, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.2)
    node = alone.node("a")
    for start in (b"", b"GET /v1/value HTTP/1.1\r\nhost: x\r\n"):
        with connect(node) as opened:
            opened.sendall(start)
            assert opened.recv(100) == b""  # cut, without an answer


def test_a_body_that_does_not_come_is_given_up(target, monkeypatch):
    from stateroom.node import server

    monkeypatch.setattr(server, "BODY_SECONDS", 0.2)
    with connect(target) as opened:
        opened.sendall(b"POST /v1/clear?dag=d HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123")
        assert b"408" in opened.recv(1000)


def test_who_takes_nothing_is_cut_off(target, monkeypatch):
    monkeypatch.setattr(listening, "STALL_SECONDS", 0.2)
    data = os.urandom(32 << 20)
    target.results.put("d", "big", data)
    digest = hashlib.sha256(data).hexdigest()
    path = f"/v1/value?dag=d&id=big&digest={digest}&generation=0&known=0"
    header, _ = signing.sign(Secret(SECRET), signing.Request("GET", path, "a"), "test", time.time())
    with connect(target) as opened:
        opened.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n{signing.AUTHORIZATION}: {header}\r\n\r\n".encode())
        inner = target.inner._listener._state
        deadline = time.monotonic() + 30
        while not inner.connections and time.monotonic() < deadline:  # it may not have been accepted yet
            threading.Event().wait(0.001)
        while inner.connections:
            threading.Event().wait(0.01)
        received = 0
        with suppress(ConnectionError):
            while piece := opened.recv(1 << 20):
                received += len(piece)
        assert received < len(data)


def test_many_connections_do_not_keep_others_out_for_ever(alone, monkeypatch):
    monkeypatch.setattr(listening, "CONNECTIONS", 8)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.5)
    node = alone.node("a")
    node.results.put("d", "x", b"the value")
    node.digest = hashlib.sha256(b"the value").hexdigest()
    half_open = [connect(node) for _ in range(30)]
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert ask(node)[:2] == (200, b"the value")
                break
            except (ConnectionError, http.client.HTTPException):
                assert time.monotonic() < deadline
    finally:
        for opened in half_open:
            opened.close()


class Liar(http.server.BaseHTTPRequestHandler):
    """A node that has the secret, and lies: `how` says in which way."""

    protocol_version = "HTTP/1.1"
    how = ""
    digest = ""
    data = b"x" * 200_000

    def log_message(self, *_):
        pass

    def do_GET(self):
        nonce = signing.parse(self.headers[signing.AUTHORIZATION])["nonce"]
        proof = signing.prove(Secret(SECRET), nonce, 200, f"0/{len(self.data)}/{self.digest}/bytes")
        length, data, headers, status = len(self.data), self.data, {}, 200
        if self.how == "bytes":
            data = b"y" * length
        elif self.how == "endless":
            data = b"x" * (length * 20)
        elif self.how == "length":
            length += 1
        elif self.how == "no length":
            length = None
            headers["connection"] = "close"
        elif self.how == "short":
            data = data[:1000]
        elif self.how == "redirect":
            status, headers["location"] = 302, "http://127.0.0.1:1/elsewhere"
        elif self.how == "gzip":
            headers["content-encoding"] = "gzip"
            data = gzip.compress(b"\0" * (100 << 20))[:length].ljust(length, b"\0")
        elif self.how == "unproven":
            proof = "0" * 64
        elif self.how == "not here":
            status, data, length = 404, b'{"code": "not-here", "message": "it does not hold it"}', None
            headers["content-length"] = str(len(data))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("content-length", str(length))
        self.send_header(signing.PROOF, proof)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(data)
        self.close_connection = True


@contextmanager
def lying(how, digest):
    kind = type("Liar", (Liar,), {"how": how, "digest": digest})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


LIES = ["bytes", "endless", "length", "no length", "short", "redirect", "gzip", "unproven", "not here"]


@pytest.mark.parametrize("how", LIES)
def test_a_lying_node_is_found_out(alone, how):
    node = alone.node("b")
    digest = hashlib.sha256(Liar.data).hexdigest()
    with lying(how, digest) as address:
        alone.shared.locations.join("a", address, "liar", 1000)
        alone.shared.locations.register("d", "x", "a", digest=digest, size=len(Liar.data), form="bytes")
        if how == "endless":  # what is beyond the length that was promised is never looked at
            assert node.fetch("d", "x") == Liar.data
            return
        with pytest.raises(Unavailable) as caught:
            node.fetch("d", "x")
        assert list(caught.value.fields["tried"]) == ["a"]
        assert not node.results.has("d", "x")
        # Nor is what it says believed: the location stays.
        assert node.locate("d", "x") == ("a",)
        honest = alone.node("c")
        honest.results.put("d", "x", Liar.data)
        assert node.fetch("d", "x", node="a") == Liar.data


def test_a_liar_that_sends_half_is_not_mixed_with_others(alone):
    node, honest = alone.nodes("b", "c")
    data = b"x" * 200_000
    honest.results.put("d", "x", data)
    digest = hashlib.sha256(data).hexdigest()

    class Half(Liar):
        """Half of other bytes, and then nothing."""

        def do_GET(self):
            self.data = b"y" * 200_000
            self.how = "short"
            super().do_GET()

    with lying("short", digest) as address:
        alone.shared.locations.join("a", address, "liar", 1000)
        alone.shared.locations.register("d", "x", "a", digest=digest, size=len(data), form="bytes")
        Liar_data, Liar.data = Liar.data, b"y" * 200_000
        try:
            assert node.fetch("d", "x", node="a") == data
        finally:
            Liar.data = Liar_data
    assert node.results.get("d", "x") == data


def test_a_form_that_is_not_registered_is_not_taken(alone):
    """That bytes are an encoded value is part of what is vouched for."""
    a, b = alone.nodes("a", "b")
    put = a.results.put("d", "x", {"k": 1})
    alone.shared.locations.unregister("d", "x")
    alone.shared.locations.register("d", "x", "a", digest=put.digest, size=put.size, form="bytes")
    with pytest.raises(Unavailable):
        b.fetch("d", "x")
    assert not b.results.has("d", "x")


def test_other_secrets_do_not_talk(alone):
    a, b = alone.node("a"), alone.node("b", secret=b"another secret, also 32 bytes long")
    a.results.put("d", "x", 1)
    with pytest.raises(Unavailable) as caught:
        b.fetch("d", "x")
    assert "401" in caught.value.fields["tried"]["a"]
    assert b.locate("d", "x") == ("a",)
    assert b.clear_everywhere("d") == {"a": None, "b": 0}


def test_nothing_of_the_secret_is_shown(alone, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    shown = []
    (tmp_path / "secret").write_bytes(SECRET)
    node = alone.node("a", secret=f"file:{tmp_path / 'secret'}")
    node.digest = "0" * 64
    shown += [repr(node), str(node.inner), repr(vars(node.inner)), repr(node._settings.__dict__)]
    shown += [
        str(ask(node, signed=False)),
        str(ask(node, claimed={"now": 0})),
        str(ask(node, claimed={"secret": b"w" * 32})),
    ]
    for secret in (SECRET[:20], SECRET.decode()):
        try:
            alone.make("b", secret=secret)
        except InvalidArgument as error:
            trace = traceback.TracebackException.from_exception(error, capture_locals=True)
            ours = [frame for frame in trace.stack if "/stateroom/node/" in frame.filename]
            shown += [
                repr(error),
                str(error.fields),
                *(str(frame.locals) for frame in ours if frame.name != "__init__"),
            ]
        else:
            pytest.fail("a secret that is none was taken")
    with pytest.raises(NotFound) as caught:
        node.fetch("d", "nothing")
    shown += [str(traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack)]
    shown += [str(record.__dict__) for record in caplog.records]
    text = "\n".join(shown)
    assert SECRET[:12].decode() not in text
    assert SECRET.hex()[:16] not in text
