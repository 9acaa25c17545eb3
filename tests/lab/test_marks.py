"""Marks on domains, kept by libvirt's own test driver."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from virtbalance.lab.kept import end_left_over, kept_domains
from virtbalance.lab.link import Link
from virtbalance.lab.marks import is_left_over, owner_of, release
from virtbalance.lab.processes import Owner

pytest.importorskip("libvirt")
pytestmark = pytest.mark.libvirt

DEAD = f"{os.getpid()}:1:not-this-boot"


@pytest.fixture
def link() -> Iterator[Link]:
    # A file of its own gives the test a host of its own; test:///default is one a process.
    opened = Link("test:///default")
    before = {domain.UUIDString() for domain in all_of(opened)}
    yield opened
    for domain in all_of(opened):
        if domain.UUIDString() not in before:
            domain.destroy()
    opened.close()


def all_of(link: Link) -> list[Any]:
    return link(lambda connection: connection.listAllDomains())


def domain(link: Link, name: str, owner: str | None) -> Any:
    mark = f"<lab:guest xmlns:lab='https://virt-balance.dev/xmlns/lab/1' owner='{owner}'/>"
    return link(
        lambda connection: connection.createXML(
            f"<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os>"
            f"<metadata>{mark if owner is not None else ''}</metadata></domain>"
        )
    )


def test_owners(link: Link) -> None:
    assert owner_of(domain(link, "foreign", None)) is None
    assert owner_of(domain(link, "kept", "")) == ""
    assert owner_of(domain(link, "owned", "1:2:b")) == "1:2:b"


def test_left_over_is_who_has_an_owner_that_is_gone(link: Link) -> None:
    assert not is_left_over(domain(link, "foreign", None))
    assert not is_left_over(domain(link, "kept", ""))
    assert not is_left_over(domain(link, "mine", str(Owner.this())))
    assert is_left_over(domain(link, "dead", DEAD))
    assert is_left_over(domain(link, "garbled", "x"))


def test_a_guest_that_is_gone_has_no_owner(link: Link) -> None:
    gone = domain(link, "gone", DEAD)
    gone.destroy()
    assert owner_of(gone) is None


def test_released_guests_stay(link: Link) -> None:
    one = domain(link, "one", str(Owner.this()))
    assert kept_domains(link) == []
    release(one)
    assert [kept.name() for kept in kept_domains(link)] == ["one"]
    assert not is_left_over(one)


def test_only_what_was_left_over_is_ended(link: Link) -> None:
    for name, owner in (("foreign", None), ("kept", ""), ("dead", DEAD)):
        domain(link, name, owner)
    said: list[str] = []
    end_left_over(link, said.append)
    assert said == ["lab: ended guest dead, which a killed lab left behind"]
    names = {one.name() for one in all_of(link)}
    assert {"foreign", "kept"} <= names
    assert "dead" not in names
