"""The garbage collector is held back while anybody asks for it, and never for longer."""

import gc
import threading

import pytest

from holdfast.garbage import _Pause


@pytest.fixture(autouse=True)
def collector():
    on = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if on else gc.disable)()


def test_it_goes_on_after_the_last_one():
    pause = _Pause()
    with pause:
        assert not gc.isenabled()
        with pause:
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_goes_on_after_an_error():
    with pytest.raises(ValueError, match="x"), _Pause():
        raise ValueError("x")
    assert gc.isenabled()


def test_who_had_it_off_keeps_it_off():
    gc.disable()
    with _Pause():
        pass
    assert not gc.isenabled()


def test_threads_that_overlap():
    pause, inside, leave = _Pause(), threading.Event(), threading.Event()

    def stay():
        with pause:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    with pause:
        pass
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_a_child_collects_though_its_parent_was_in_the_middle():
    pause = _Pause()
    pause.__enter__()  # by a thread that is not there after the fork
    pause.start_in_child()
    assert gc.isenabled()
    with pause:
        assert not gc.isenabled()
    assert gc.isenabled()
