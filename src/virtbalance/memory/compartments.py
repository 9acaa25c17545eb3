"""Budgets of the parts of a host's memory that some guests can't leave (memory.md, section 5).

Each follows from the same account as the whole host's, with what is inside only:

    total - what else is inside - reserve - QEMU's own memory - what the fixed guests inside take

where the reserve is the same part of the total, but has no least size: what the host needs at any
rate is kept free once, in the host's own budget.
"""

from collections.abc import Mapping, Sequence

from virtbalance.memory.budget import OtherUse, watch_other
from virtbalance.memory.settings import BudgetSettings
from virtbalance.model.memory_estimate import CompartmentEstimate
from virtbalance.model.snapshot import Compartment, HostMemory, MemorySample


def watch_compartments(
    known: Mapping[str, OtherUse],
    compartments: Sequence[Compartment],
    samples: Mapping[str, MemorySample],
    now_s: float,
    settings: BudgetSettings,
) -> dict[str, OtherUse]:
    """Take in what each compartment, by name, holds besides its guests; ``samples`` by UUID."""
    others = {}
    for compartment in compartments:
        inside = [samples[uuid] for uuid in sorted(compartment.guests & samples.keys())]
        memory = HostMemory(compartment.total_kib, compartment.available_kib)
        other = known.get(compartment.name, OtherUse())
        others[compartment.name] = watch_other(other, memory, inside, now_s, settings)
    return others


def compartment_estimates(
    compartments: Sequence[Compartment],
    others: Mapping[str, OtherUse],
    takes_kib: Mapping[str, int],
    settings: BudgetSettings,
) -> tuple[CompartmentEstimate, ...]:
    """Return what the guests inside may have; ``takes_kib``: QEMU's own and charges, by UUID."""
    return tuple(
        CompartmentEstimate(
            name=compartment.name,
            budget_kib=compartment.total_kib
            - round(others[compartment.name].peak_kib)
            - round(settings.reserve_ratio * compartment.total_kib)
            - sum(takes_kib.get(uuid, 0) for uuid in compartment.guests),
            pool_kib=round(settings.pool_ratio * compartment.total_kib),
            guests=compartment.guests,
        )
        for compartment in compartments
    )
