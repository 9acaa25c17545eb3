"""Memory statistics of one guest, from libvirt's ``memoryStats``."""

from collections.abc import Mapping

import libvirt

from virtbalance.hypervisor.errors import Fault, fault_of
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.link import Link
from virtbalance.model.snapshot import MemorySample


def memory_sample(guest: Guest, statistics: Mapping[str, int]) -> MemorySample:
    """Translate one answer. What the guest does not tell is missing there and ``None`` here."""
    return MemorySample(
        maximum_kib=guest.maximum_kib,
        actual_kib=statistics.get("actual", guest.current_kib),
        available_kib=statistics.get("available"),
        unused_kib=statistics.get("unused"),
        usable_kib=statistics.get("usable"),
        swap_in_kib=statistics.get("swap_in"),
        swap_out_kib=statistics.get("swap_out"),
        major_faults=statistics.get("major_fault"),
        rss_kib=statistics.get("rss"),
        last_update_s=statistics.get("last_update"),
    )


def late_sample(guest: Guest, last: MemorySample | None) -> MemorySample:
    """Return what is left to say of a guest that does not answer: what it said last."""
    if last is None:
        return MemorySample(guest.maximum_kib, guest.current_kib, late=True)
    return last._replace(late=True)


def has_job(link: Link, uuid: str) -> bool:
    """Return whether a migration, dump or snapshot is under way, of a guest that answers.

    Until its end libvirt keeps whoever wants to change the guest waiting. (``controlInfo`` would
    not tell: it knows of single calls only.) Where the guest comes in by migration the question is
    refused as if there were no guest.
    """
    try:
        return link.job_type(uuid) != int(libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError as error:
        match fault_of(error):
            case Fault.UNSUPPORTED:
                return False
            case Fault.GONE:
                return True
        raise
