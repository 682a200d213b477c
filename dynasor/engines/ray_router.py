"""Serve's request router that goes by the routing rule: gangs stay together on Ray.

It lives beside the handle that sends the requests, in the same process, and learns from them: which gang
a request is of, and the latest hints. See `dynasor.engines.ray_serve` for what they carry.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from algorithms.program import Request
from dynasor.scheduling.gang import Hints
from dynasor.scheduling.placements import Placements


class GangRouter(RequestRouter):
    """See the module."""

    # An engine in the replica's process may keep it from answering for longer than Serve's 0.1 s.
    queue_len_response_deadline_s = 1.0

    def initialize_state(self, places: int = 64) -> None:
        """What Serve was configured with.

        Args:
            places: requests that a replica runs at once.
        """
        self._places = places
        self._placements = Placements()
        self._index: dict[str, int] = {}
        self._named: dict[str, RunningReplica] = {}
        self._name: dict[int, str] = {}
        self._request: dict[str, str] = {}  # Serve's id -> ours
        self._latest: dict[str, str] = {}  # and back: a request may be sent a second time
        self._lock = Lock()  # Serve tells of ends on threads of its own

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Replicas have come or gone; one that drains is gone already."""
        present = {replica.replica_id.unique_id: replica for replica in replicas}
        with self._lock:
            for name in self._index.keys() - present.keys():
                self._placements.lost(self._index.pop(name))
            for name in sorted(present.keys() - self._index.keys()):
                self._index[name] = index = self._placements.add(self._places)
                self._name[index] = name
            self._named = present
        super().update_replicas(replicas)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """A request has found its replica dead, before Serve's controller has told of it."""
        with self._lock:
            self._named.pop(replica_id.unique_id, None)
            index = self._index.pop(replica_id.unique_id, None)
            if index is not None:
                self._placements.lost(index)
        super().on_replica_actor_died(replica_id)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The replica of the rule first, then any."""
        if pending_request is None:
            return [candidate_replicas]
        with self._lock:
            self._learn(pending_request)
            wanted = self._wanted(pending_request)
            first = None if wanted is None else self._named.get(wanted)
        return [candidate_replicas] if first is None else [[first], candidate_replicas]

    def _learn(self, pending: PendingRequest) -> None:
        """Take the hints on gangs that a call carries."""
        news: dict[str, Hints] = {}
        if pending.metadata.call_method == "tell":
            news = pending.args[0]
        elif pending.metadata.call_method == "generate":
            news = {pending.args[0].program: pending.args[1]}
        for gang, hints in news.items():
            self._placements.hint(gang, hints.tokens)

    def _wanted(self, pending: PendingRequest) -> str | None:
        """Name of the replica that a call should go to, None for any."""
        to: str | None = pending.kwargs.get("to")
        if pending.metadata.call_method != "generate" or not self._index:
            return to
        request: Request = pending.args[0]
        avoid = [self._index[name] for name in pending.kwargs["avoid"] if name in self._index]
        author = self._index.get(pending.kwargs["author"])
        call = pending.metadata.internal_request_id
        self._request[call] = request.id
        self._latest[request.id] = call
        return self._name[self._placements.place(request, avoid, author)]

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """A request has left its replica, whatever became of it."""
        with self._lock:
            request = self._request.pop(internal_request_id, None)
            if request is not None and self._latest.get(request) == internal_request_id:
                del self._latest[request]
                self._placements.end(request)

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Nothing more to know: what was placed was counted."""
