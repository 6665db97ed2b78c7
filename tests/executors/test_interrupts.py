import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from gpbo.executors.interrupts import Interrupts

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)


@pytest.fixture(autouse=True)
def defaults():
    """The handlers of a plain script, whatever runs the tests."""
    old = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    old = {number: signal.signal(number, handler) for number, handler in old.items()}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def interrupted(scenario, *arguments):
    """The steps that a scenario took before it ended in KeyboardInterrupt."""
    steps = []
    with pytest.raises(KeyboardInterrupt):
        scenario(steps.append, *arguments)
    return steps


@SIGNALS
def test_is_noted_and_raised_where_asked(number):
    def scenario(step):
        with Interrupts() as interrupts:
            interrupts.check()
            send(number)
            step("went on")
            interrupts.check()
            step("not reached")

    assert interrupted(scenario) == ["went on"]


@SIGNALS
def test_is_raised_at_once_where_allowed(number):
    def scenario(step):
        with Interrupts() as interrupts, interrupts.at_once():
            step("began")
            send(number)
            step("not reached")

    assert interrupted(scenario) == ["began"]


def test_noted_before_it_is_raised_on_the_way_in():
    def scenario(step):
        with Interrupts() as interrupts:
            send(signal.SIGINT)
            step("went on")
            with interrupts.at_once():
                step("not reached")

    assert interrupted(scenario) == ["went on"]


def test_is_raised_again_if_it_was_caught():
    def scenario(step):
        with Interrupts() as interrupts:
            with interrupts.at_once():
                try:
                    send(signal.SIGINT)
                except KeyboardInterrupt:
                    step("swallowed")
            step("not reached")

    assert interrupted(scenario) == ["swallowed"]


@SIGNALS
def test_is_deferred_to_the_end_of_a_write(number):
    def scenario(step):
        with Interrupts() as interrupts, interrupts.at_once():
            with interrupts.deferred():
                send(number)
                step("written")
            step("not reached")

    assert interrupted(scenario) == ["written"]


def test_deferring_where_nothing_is_raised_at_once_raises_nothing():
    def scenario(step):
        with Interrupts() as interrupts:
            with interrupts.deferred():
                send(signal.SIGINT)
            step("went on")

    assert interrupted(scenario) == ["went on"]


def test_the_second_one_is_raised_anywhere():
    def scenario(step):
        with Interrupts():
            send(signal.SIGINT)
            step("first")
            send(signal.SIGINT)
            step("not reached")

    assert interrupted(scenario) == ["first"]


def test_clean_up_is_not_interrupted_and_nothing_is_swallowed():
    def scenario(step):
        with Interrupts() as interrupts:
            interrupts.hold()
            for _ in range(3):
                send(signal.SIGINT)
            step("cleaned up")

    assert interrupted(scenario) == ["cleaned up"]


def test_an_error_is_not_replaced():
    def scenario():
        with Interrupts():
            send(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scenario()


def test_handlers_are_put_back():
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "own"])
def test_handlers_of_the_users_are_left_alone(handler):
    signal.signal(signal.SIGTERM, handler)
    with Interrupts() as interrupts:
        assert signal.getsignal(signal.SIGTERM) == handler
        send(signal.SIGTERM)
        interrupts.check()


def test_another_thread_changes_nothing():
    seen = []

    def work():
        with Interrupts() as interrupts:
            seen.append(signal.getsignal(signal.SIGINT))
            interrupts.check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_fork_dies_as_it_would_have(tmp_path):
    script = textwrap.dedent("""
        import os, signal, time
        from gpbo.executors.interrupts import Interrupts

        with Interrupts():
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == (f"-{signal.SIGTERM:d}\n", "")


def test_what_an_outer_context_noted_is_taken_over():
    def scenario(step):
        with Interrupts():
            send(signal.SIGINT)
            with Interrupts() as inner:
                step(inner.noted)
                inner.check()
                step("not reached")

    assert interrupted(scenario) == ["SIGINT"]


def test_what_an_inner_context_noted_is_given_back():
    def scenario(step):
        with Interrupts() as outer:
            with pytest.raises(KeyboardInterrupt), Interrupts():
                send(signal.SIGTERM)
            step(outer.noted)
            send(signal.SIGINT)
            step("not reached")

    assert interrupted(scenario) == ["SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_waits_for_the_end_of_an_inner_context():
    def scenario(step):
        with Interrupts() as outer, outer.at_once():
            with Interrupts():
                send(signal.SIGINT)
                step("went on")
            step("not reached")

    assert interrupted(scenario) == ["went on"]
