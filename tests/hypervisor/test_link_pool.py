"""Links for calls that may hang."""

from contextlib import ExitStack
from typing import cast

import pytest

from virtbalance.hypervisor.link import Link
from virtbalance.hypervisor.link_pool import CALLS_PER_LINK, LinkPool

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


def test_no_link_carries_more_than_four_calls() -> None:
    pool = LinkPool(new_link(), new_link)
    with ExitStack() as held:
        links = [held.enter_context(pool.use()) for _ in range(9)]
        assert max(links.count(link) for link in links) == CALLS_PER_LINK
        assert len(set(links)) == 3
    with pool.use() as link:
        assert link is links[0], "the first one is free again"


def test_a_dead_link_is_not_lent() -> None:
    first = new_link()
    pool = LinkPool(first, new_link)
    cast("FakeLink", first).alive = False
    with pool.use() as link:
        assert link is not first


def test_without_another_process_one_link_does() -> None:
    first = new_link()
    pool = LinkPool(first, None)
    with ExitStack() as held:
        assert {held.enter_context(pool.use()) for _ in range(9)} == {first}


def test_close_closes_all() -> None:
    pool = LinkPool(new_link(), new_link)
    with ExitStack() as held:
        links = [held.enter_context(pool.use()) for _ in range(5)]
    pool.close()
    assert all(cast("FakeLink", link).closed for link in links)
