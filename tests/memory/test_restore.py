"""Putting sizes back at the end."""

from tests.memory.make import MIB, believed, whole
from virtbalance.memory.restore import restore
from virtbalance.memory.settings import GuardSettings
from virtbalance.model.memory_estimate import MemoryEstimate


def sizes(estimate: MemoryEstimate, **originals_mib: int) -> dict[str, int]:
    originals = {name: mib * MIB for name, mib in originals_mib.items()}
    return {r.uuid: r.target_kib // MIB for r in restore(estimate, originals, GuardSettings())}


def test_all_back_where_it_fits() -> None:
    here = whole(believed("a", actual=2048), believed("b", actual=400))
    assert sizes(here, a=512, b=512) == {"a": 512, "b": 512}


def test_only_guests_we_have_changed() -> None:
    assert sizes(whole(believed("a", actual=2048))) == {}
    assert sizes(whole(believed("a", actual=512)), a=512) == {}


def test_no_guest_is_shrunk_below_what_is_safe_for_it() -> None:
    assert sizes(whole(believed("a", used=900, actual=2048)), a=512) == {"a": 1000}


def test_growth_comes_out_of_what_is_free_now_evenly() -> None:
    here = whole(
        believed("a", actual=400),
        believed("b", actual=400),
        believed("c", actual=2048),
        budget=3048,
    )
    assert sizes(here, a=1024, b=1024, c=512) == {"a": 500, "b": 500, "c": 512}
    assert sizes(whole(believed("a", actual=400), budget=300), a=1024) == {}


def test_a_fixed_guest_is_not_shrunk() -> None:
    blind = believed("a", actual=2048, fixed="its statistics are 9 s old")
    assert sizes(whole(blind), a=512) == {}


def test_never_above_the_maximum() -> None:
    assert sizes(whole(believed("a", actual=512, maximum=1024)), a=2048) == {"a": 1024}


def test_the_reason_says_what_was_not_possible() -> None:
    here = whole(believed("a", used=900, actual=2048))
    (done,) = restore(here, {"a": 512 * MIB}, GuardSettings())
    assert str(done.reason) == "a to 1000 MiB: its original 512 MiB is not safe now"
