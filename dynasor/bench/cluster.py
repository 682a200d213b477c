"""What serves in virtual time: replicas behind one front end."""

from __future__ import annotations

from dataclasses import dataclass

from dynasor.bench.virtual_router import Routing
from dynasor.engines.replica_settings import ReplicaSettings


@dataclass(frozen=True, slots=True)
class Cluster:
    """Replicas behind one front end.

    Attributes:
        replica: size and speed of each.
        replicas: how many.
        per_query: seconds of the front end from a query's arrival to its first requests.
        per_request: seconds of the front end from the end of a request to the decision on it.
        routing: which replica runs a request; by itself as the real service chooses.
    """

    replica: ReplicaSettings
    replicas: int = 1
    per_query: float = 0.0
    per_request: float = 0.0
    routing: Routing = "two-choices"

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas must be 1 or more, not {self.replicas}")
        if self.per_query < 0 or self.per_request < 0:
            raise ValueError(
                "per_query and per_request must be 0 or more seconds, not "
                f"{self.per_query} and {self.per_request}"
            )
