"""libvirt's domain events as records of ours."""

import libvirt

from virtbalance.model.tick import Event

LIFECYCLE = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
TUNABLE = libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE
OTHER_CHANGES = (
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
)
PIN_PREFIXES = ("cputunable.vcpupin", "cputunable.emulatorpin", "cputunable.iothreadpin")

_KINDS = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: "guest-started",
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "guest-paused",
    libvirt.VIR_DOMAIN_EVENT_RESUMED: "guest-resumed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED: "guest-stopped",
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: "guest-paused",
    libvirt.VIR_DOMAIN_EVENT_CRASHED: "guest-crashed",
}
_MIGRATIONS = {
    (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED): "arriving",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED): "leaving",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED): "arrived",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED): "left",
}
_DETAILS = {
    (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED): "restored",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR): "I/O error",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG): "watchdog",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN): "shut down",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED): "destroyed",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED): "crashed",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED): "saved",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED): "failed",
}


def lifecycle_event(uuid: str, name: str, event: int, detail: int) -> Event | None:
    """Return what a lifecycle event means here; ``None`` if it only concerns definitions."""
    if (event, detail) in _MIGRATIONS:
        direction = _MIGRATIONS[event, detail]
        return Event("guest-migration", f"{name}: {direction} by migration", uuid)
    kind = _KINDS.get(event)
    if kind is None:
        return None
    word = kind.removeprefix("guest-")
    why = _DETAILS.get((event, detail))
    return Event(kind, f"{name}: {word}" + (f" ({why})" if why else ""), uuid)
