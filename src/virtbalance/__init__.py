"""virt-balance: keeps the guests of a KVM host fairly served."""

__version__ = "0.1.0"
