"""When a report is new: its time tells, and within a second its figures."""

from virtbalance.memory.reports import Hearing, listen
from virtbalance.model.snapshot import MemorySample

FIRST = MemorySample(
    maximum_kib=524_288,
    actual_kib=524_288,
    available_kib=477_839,
    unused_kib=0,
    usable_kib=118_685,
    last_update_s=274,
)


def test_the_same_report_is_heard_once() -> None:
    heard = listen(Hearing(), FIRST, 10.0)
    assert heard.reports == 1
    assert listen(heard, FIRST, 11.0) is heard
    # the balloon's size is the host's word, not the guest's
    assert listen(heard, FIRST._replace(actual_kib=500_000), 11.0) is heard


def test_other_figures_of_the_same_second_are_a_new_report() -> None:
    heard = listen(listen(Hearing(), FIRST, 10.0), FIRST._replace(usable_kib=16_285), 11.0)
    assert heard.reports == 2
    assert heard.heard_s == 11.0
    assert heard.last is not None
    assert heard.before is not None
    assert (heard.before.usable_kib, heard.last.usable_kib) == (118_685, 16_285)


def test_nonsense_of_the_same_second_is_not_a_report() -> None:
    heard = listen(Hearing(), FIRST, 10.0)
    assert listen(heard, FIRST._replace(usable_kib=-1), 11.0) is heard
