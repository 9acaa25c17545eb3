"""Links for calls that may hang."""

from contextlib import ExitStack
from typing import cast

import pytest

from virtbalance.hypervisor.link import Link
from virtbalance.hypervisor.link_pool import LinkPool

pytestmark = pytest.mark.libvirt


class FakeLink:
    def __init__(self) -> None:
        self.alive = True
        self.closed = False

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.closed = True


def new_link() -> Link:
    return cast("Link", FakeLink())


def is_closed(link: Link) -> bool:
    return cast("FakeLink", link).closed


def test_a_link_carries_one_call_at_a_time() -> None:
    first = new_link()
    pool = LinkPool(first, new_link)
    with ExitStack() as held:
        links = [held.enter_context(pool.use()) for _ in range(9)]
        assert len(set(links)) == 9
        assert links[0] is first


def test_links_are_used_again() -> None:
    pool = LinkPool(new_link(), new_link)
    used = set()
    for _ in range(9):
        with pool.use() as link:
            used.add(link)
    assert len(used) == 1


def test_a_dead_link_is_not_lent() -> None:
    first = new_link()
    pool = LinkPool(first, new_link)
    cast("FakeLink", first).alive = False
    with pool.use() as link:
        assert link is not first


def test_within_this_process_one_link_does() -> None:
    first = new_link()
    pool = LinkPool(first, None)
    with ExitStack() as held:
        assert {held.enter_context(pool.use()) for _ in range(9)} == {first}


def test_close_waits_for_nobody_and_forgets_nobody() -> None:
    pool = LinkPool(new_link(), new_link)
    with ExitStack() as held:
        idle = held.enter_context(pool.use())
    with pool.use() as first, pool.use() as second:
        pool.close()
        assert not is_closed(first)
        assert not is_closed(second)
    assert is_closed(first)
    assert is_closed(second)
    assert idle in (first, second)


def test_close_closes_what_is_idle() -> None:
    first = new_link()
    LinkPool(first, new_link).close()
    assert is_closed(first)
