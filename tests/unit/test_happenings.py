from stackward.core.happenings import Happening, Watchman
from stackward.core.settling import Settling


def happens(watchman, action, at=0.0, **details):
    return watchman.judge(Happening(at, action, "c1", "shop-db-1", "shop", **details))


def test_one_that_dies_is_looked_at_and_said():
    verdict = happens(Watchman(), "die", exit_code="3")
    assert (verdict.text, verdict.look) == ("shop-db-1 of shop died with exit code 3", True)


def test_one_that_was_told_to_stop_is_not():
    watchman = Watchman()
    happens(watchman, "kill", signal="15")
    assert not happens(watchman, "die", at=30, exit_code="143").look
    happens(watchman, "start", at=40)
    assert happens(watchman, "die", at=50, exit_code="143").look


def test_being_told_to_read_its_settings_again_is_no_stop():
    watchman = Watchman()
    happens(watchman, "kill", signal="1")
    assert happens(watchman, "die", at=1, exit_code="1").look


def test_who_was_told_long_ago_and_dies_now_died():
    watchman = Watchman()
    happens(watchman, "kill", signal="28")  # some take it for a stop
    assert happens(watchman, "die", at=3600, exit_code="1").look


def test_one_that_did_its_work_is_said_and_not_looked_at():
    verdict = happens(Watchman(), "die", exit_code="0")
    assert (verdict.text, verdict.look) == ("shop-db-1 of shop ended", False)


def test_a_loop_is_looked_at_until_it_can_be_seen_as_one_and_no_more():
    watchman = Watchman()
    looks = [happens(watchman, "die", at=float(at), exit_code="1").look for at in range(0, 600, 20)]
    assert looks == [True] * 3 + [False] * 27
    assert happens(watchman, "die", at=5000.0, exit_code="1").look


def test_unhealthy_and_out_of_memory_are_looked_at():
    assert happens(Watchman(), "health_status: unhealthy").look
    assert happens(Watchman(), "oom").text == "shop-db-1 of shop ran out of memory"


def test_what_may_mean_that_all_is_well_again():
    for action in ("start", "health_status: healthy", "destroy"):
        verdict = happens(Watchman(), action)
        assert (verdict.look, verdict.better) == (False, True)


def test_names_are_shown_as_they_can_be():
    verdict = Watchman().judge(Happening(0, "die", "c", "db", "caf\udce9", exit_code="1"))
    assert verdict.text.startswith("db of caf\\xe9 ")


def test_what_never_rests_is_due_now_and_then_if_it_is_to_be():
    for most, expected in ((30.0, True), (0.0, False)):
        settling = Settling(2.0, most)
        due = []
        for second in range(40):
            settling.touch(float(second))
            due.append(settling.is_due(float(second)))
        assert any(due) is expected


def test_it_is_due_once_after_it_came_to_rest():
    settling = Settling(2.0)
    assert not settling.is_due(0.0)
    settling.touch(0.0)
    settling.touch(1.0)
    assert [settling.is_due(at) for at in (2.0, 3.0, 4.0)] == [False, True, False]
