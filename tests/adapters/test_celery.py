"""Celery's results in a store, with a worker."""

import warnings

import pytest

pytest.importorskip("celery")

from celery import Celery, chord, group
from celery.exceptions import ImproperlyConfigured

import stateroom
from stateroom.adapters.celery import StateroomBackend

from .conftest import opened


def application(backend):
    app = Celery("tests", broker="memory://", backend=backend)
    app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
    return app


@pytest.fixture
def backend(store):
    return StateroomBackend(store, app=application("cache+memory://"))


def test_a_worker_keeps_results_groups_and_chords(url):
    from celery.contrib.testing.worker import start_worker

    app = application(f"stateroom+{url}" if "://" in url else f"stateroom+sqlite:///{url}")
    assert isinstance(app.backend, StateroomBackend)

    @app.task
    def add(a, b):
        return a + b

    @app.task
    def total(numbers):
        return sum(numbers)

    @app.task
    def fail():
        raise ValueError("no luck")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with start_worker(app, perform_ping_check=False, pool="solo"):
            assert add.delay(1, 2).get(timeout=20, interval=0.02) == 3
            assert group(add.s(n, n) for n in range(3))().get(timeout=20, interval=0.02) == [0, 2, 4]
            assert chord(add.s(n, n) for n in range(5))(total.s()).get(timeout=20, interval=0.02) == 20
            failed = fail.delay()
            with pytest.raises(ValueError, match="no luck"):
                failed.get(timeout=20, interval=0.02)
            failed.forget()
    with stateroom.open(url) as store:
        assert store.check() == []
        assert not [result for result in store.results.scan() if "chord-unlock" in result.dag]
        assert all(result.expires_at is not None for result in store.results.scan())


def test_keys_are_set_counted_and_deleted(backend):
    assert backend.get(b"k") is None
    backend.set(b"k", "text")
    assert backend.mget([b"k", b"none"]) == [b"text", None]
    assert [backend.incr(b"n") for _ in range(3)] == [1, 2, 3]
    backend.expire(b"k", 5)
    backend.expire(b"absent", 5)
    backend.delete(b"k")
    assert backend.get(b"k") is None


def test_a_url_without_a_store_is_refused():
    with pytest.raises(ImproperlyConfigured, match="sqlite"):
        StateroomBackend("", app=application("cache+memory://"))


def test_a_result_is_seen_through_the_families(request):
    with opened("memory", request) as store:
        StateroomBackend(store, app=application("cache+memory://")).store_result("t-1", 5, "SUCCESS")
        assert [result.dag for result in store.results.scan()] == ["celery:celery-task-meta-t-1"]
