"""A dry tick of the vCPU scheduler as a JSON object, with what its actions promise."""

from typing import Any

from virtbalance.cpu.promise import Promise, Service
from virtbalance.model.tick import Tick
from virtbalance.telemetry.tick_json import tick_object


def plan_object(tick: Tick, promise: Promise) -> dict[str, Any]:
    """Return the tick object with ``promise``: ``before``, ``after`` and the load of each pCPU."""
    return tick_object(tick) | {
        "promise": {
            "owed_pcpus": round(promise.before.owed, 4),
            "before": _service(promise.before),
            "after": _service(promise.after),
            "pcpus": [
                {
                    "pcpu": cpu,
                    "load_before": round(load, 4),
                    "load_after": round(promise.after.loads[cpu], 4),
                }
                for cpu, load in sorted(promise.before.loads.items())
            ],
        }
    }


def _service(service: Service) -> dict[str, float]:
    return {
        "shortfall_pcpus": round(service.shortfall, 4),
        "shortfall_ratio": round(service.shortfall_ratio, 4),
        "spread_ratio": round(service.spread_ratio, 4),
    }
