"""CPU lists as the kernel and libvirt write them: ``0-3,8,10-11``, ``^2`` takes one out."""

from collections.abc import Iterable


def parse_cpu_list(text: str) -> frozenset[int]:
    """Return the CPU numbers of a list; an empty list is empty. ValueError if it is malformed."""
    added: set[int] = set()
    removed: set[int] = set()
    for part in text.strip().split(","):
        item = part.strip()
        if not item or item == "(null)":
            continue
        target = removed if item.startswith("^") else added
        first, _, last = item.removeprefix("^").partition("-")
        cpus = range(int(first), int(last or first) + 1)
        if not cpus:
            raise ValueError(f"{item!r} is no range of CPUs")
        target.update(cpus)
    return frozenset(added - removed)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return the shortest list of these CPU numbers."""
    parts: list[str] = []
    run: list[int] = []
    for cpu in sorted(set(cpus)):
        if run and cpu != run[-1] + 1:
            parts.append(_range(run))
            run = []
        run.append(cpu)
    if run:
        parts.append(_range(run))
    return ",".join(parts)


def _range(run: list[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
