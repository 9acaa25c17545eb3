"""The journal keeps what is needed to undo, whoever writes and whenever it is read."""

import json
from pathlib import Path

import pytest

from virtbalance.control.journal import (
    Entry,
    Journal,
    JournalError,
    MemoryJournal,
    PinnedVcpu,
    SizedBalloon,
    UndoStore,
)
from virtbalance.model.guest import RoleName

PINNED = Entry("web", "1@77", vcpus={0: PinnedVcpu(frozenset({0, 1}), (frozenset({1}),))})
SIZED = Entry("web", "1@77", balloon=SizedBalloon(524288, 400000, original_stats_period_s=0))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "host", boot_id="boot-1")


@pytest.fixture(params=["file", "memory"])
def either(request: pytest.FixtureRequest, journal: Journal) -> UndoStore:
    return journal if request.param == "file" else MemoryJournal()


def test_what_is_written_is_read(either: UndoStore) -> None:
    either.update(RoleName.CPU, {"u1": PINNED})
    assert either.entries() == {"u1": PINNED}


def test_the_two_programs_keep_their_halves_apart(either: UndoStore) -> None:
    either.update(RoleName.CPU, {"u1": PINNED})
    either.update(RoleName.MEMORY, {"u1": SIZED})
    entry = either.entries()["u1"]
    assert (entry.vcpus, entry.balloon) == (PINNED.vcpus, SIZED.balloon)
    either.forget(RoleName.CPU, frozenset({"u1"}))
    assert either.entries() == {"u1": SIZED}
    either.forget(RoleName.MEMORY, frozenset({"u1"}))
    assert either.entries() == {}


def test_a_guest_started_anew_replaces_its_old_entry(journal: Journal) -> None:
    journal.update(RoleName.MEMORY, {"u1": SIZED})
    later = Entry("web", "2@99", vcpus=PINNED.vcpus)
    journal.update(RoleName.CPU, {"u1": later})
    assert journal.entries() == {"u1": later}


def test_a_reboot_voids_all_entries(journal: Journal, tmp_path: Path) -> None:
    journal.update(RoleName.CPU, {"u1": PINNED})
    assert Journal(tmp_path / "host", boot_id="boot-2").entries() == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version":1,"boot":"boot-1","guests":{"u":3}}']
)
def test_a_damaged_journal_is_one_clear_error(
    journal: Journal, tmp_path: Path, content: str
) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "journal.json").write_text(content)
    with pytest.raises(JournalError, match=r"journal\.json is damaged .*move it away"):
        journal.entries()


def test_a_journal_of_another_version_is_not_guessed_at(journal: Journal, tmp_path: Path) -> None:
    journal.update(RoleName.CPU, {"u1": PINNED})
    path = tmp_path / "host" / "journal.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "version": 2}))
    with pytest.raises(JournalError, match="version 2, not 1"):
        journal.entries()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot open .*file/host/journal\.lock"):
        Journal(tmp_path / "file" / "host", boot_id="b").entries()
