"""The only door to libvirt."""

from virtbalance.hypervisor.libvirt_hypervisor import LibvirtHypervisor, connect

__all__ = ["LibvirtHypervisor", "connect"]
