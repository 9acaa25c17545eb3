"""KVM or TCG: tried once a boot, remembered, said."""

from pathlib import Path

import pytest

from virtbalance.lab import probe


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(probe, "KVM_DEVICE", str(path))
    return path


def chosen(cache: Path, *, boots: bool | None) -> tuple[str, list[str]]:
    """`boots` None: the answer has to come without trying."""

    def tried() -> bool:
        assert boots is not None
        return boots

    said: list[str] = []
    return probe.virtualization(cache, tried, said.append), said


def test_kvm_where_a_guest_boots(tmp_path: Path, device: Path) -> None:
    assert chosen(tmp_path, boots=True) == ("kvm", ["lab: guests run under KVM"])
    assert chosen(tmp_path, boots=None) == ("kvm", ["lab: guests run under KVM"])


def test_tcg_where_none_does(tmp_path: Path, device: Path) -> None:
    expected = ("qemu", ["lab: guests run under TCG (no guest came up under KVM in 8 s)"])
    assert chosen(tmp_path, boots=False) == expected
    assert chosen(tmp_path, boots=None) == expected


def test_no_trying_without_a_device(tmp_path: Path, device: Path) -> None:
    device.unlink()
    kind, said = chosen(tmp_path, boots=None)
    assert kind == "qemu"
    assert said == [f"lab: guests run under TCG ({device} can't be used)"]


def test_an_answer_of_another_boot_or_a_broken_one_is_not_believed(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(tmp_path, boots=False)
    memory = tmp_path / "virtualization.json"
    for text in ('{"boot": "other", "type": "qemu", "says": "x"}', "{", "[]", "{}"):
        memory.write_text(text)
        assert chosen(tmp_path, boots=True)[0] == "kvm"
