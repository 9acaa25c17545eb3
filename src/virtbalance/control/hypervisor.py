"""The one door to the world: a live host, a simulated one and a recorded one fill it alike."""

from collections.abc import Sequence
from typing import Protocol

from virtbalance.model.plan import Action
from virtbalance.model.snapshot import Scope, Snapshot
from virtbalance.model.tick import Event, Outcome
from virtbalance.model.topology import Topology


class Hypervisor(Protocol):
    """What the loop asks of a host.

    ``sample`` and ``topology`` raise ``HypervisorLostError`` when the connection is gone; ``apply``
    never raises for anything a guest or libvirt does, it says so in the outcomes.
    """

    @property
    def host_id(self) -> str:
        """A name for this host and driver, stable across restarts and safe as a file name."""

    @property
    def boot_id(self) -> str:
        """Changes when the host is booted: affinities written down before are void then."""

    def topology(self) -> Topology:
        """Return the host's CPUs as they are now."""

    def sample(self, scope: Scope, deadline_s: float) -> Snapshot:
        """Look at the host once. A guest that does not answer in time is marked, not awaited."""

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out in order, one call each, all within the deadline; one outcome each."""

    def events(self) -> tuple[Event, ...]:
        """Return what happened since the last call (guests that came or went, and the like)."""

    def reconnect(self) -> None:
        """Make the connection anew after ``HypervisorLostError``; raises it again if that fails."""

    def close(self) -> None:
        """Let go of everything held; safe to call twice."""
