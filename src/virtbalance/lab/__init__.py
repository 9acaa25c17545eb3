"""Real guests on demand: kernel, initramfs, workload program, embedded or running libvirt.

In use::

    with Lab.embedded(say=print) as lab:
        one, two = lab.start([GuestSpec(name="one"), GuestSpec(name="two", vcpus=2)])
        one.load_cpu(0, Duty(50))
        print(one.report().iterations)
"""

from virtbalance.lab.errors import LabError
from virtbalance.lab.guest import Guest
from virtbalance.lab.lab import Lab, end_kept, kept_guests
from virtbalance.lab.loads import Burst, CountAndSleep, CpuLoad, Duty, Hog, Off
from virtbalance.lab.reports import CpuReport, MemoryFigures, MemoryReport, Report
from virtbalance.lab.specs import Balloon, GuestSpec

__all__ = [
    "Balloon",
    "Burst",
    "CountAndSleep",
    "CpuLoad",
    "CpuReport",
    "Duty",
    "Guest",
    "GuestSpec",
    "Hog",
    "Lab",
    "LabError",
    "MemoryFigures",
    "MemoryReport",
    "Off",
    "Report",
    "end_kept",
    "kept_guests",
]
