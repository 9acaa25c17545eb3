"""Where a policy sits: asked once a tick, its state kept for it, its answer checked for kind."""

from typing import Any, Protocol, TypeVar

Plan = TypeVar("Plan")


class _Policy(Protocol):
    name: str

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any: ...


class PolicySeat:
    """A policy with its configuration and what it wants to remember."""

    def __init__(self, policy: _Policy, config: Any) -> None:
        self._policy = policy
        self._config = config
        self._state: Any = None

    @property
    def name(self) -> str:
        """The policy's name."""
        return self._policy.name

    def ask(self, estimate: Any, now_s: float, kind: type[Plan]) -> Plan:
        """Return the policy's plan; its state advances only with a plan of the right kind.

        Raises whatever the policy raises, and ``TypeError`` for an answer of another kind.
        """
        answer = self._policy.decide(self._state, estimate, self._config, now_s)
        match answer:
            case (plan, state) if isinstance(plan, kind):
                self._state = state
                return plan
        raise TypeError(f"decide returned {type(answer).__name__}, not ({kind.__name__}, state)")
