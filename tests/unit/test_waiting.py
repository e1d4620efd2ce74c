import pytest

from resources.waiting import WaitFailed, WaitTimeout, wait_until


def test_what_became_ready_is_given_back() -> None:
    looks = iter([None, False, "it"])
    assert wait_until(lambda: next(looks), what="it", timeout_s=5, every_s=0.01) == "it"


def test_a_zero_is_an_answer() -> None:
    assert wait_until(lambda: 0, what="a count", timeout_s=0) == 0


def test_the_deadline_names_what_was_waited_for() -> None:
    with pytest.raises(WaitTimeout, match=r"^the moon was not ready after 0\.05 s\.$"):
        wait_until(lambda: None, what="the moon", timeout_s=0.05, every_s=0.01)


def test_a_failure_ends_the_wait_at_once() -> None:
    with pytest.raises(WaitFailed, match=r"^the moon failed: eclipse$"):
        wait_until(lambda: False, what="the moon", timeout_s=60, failed=lambda: "eclipse")
