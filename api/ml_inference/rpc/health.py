"""`grpc.health.v1`: what probes and load balancers ask, of the whole service and of each model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from ml_inference.errors import ModelNotFound
from ml_inference.rpc.calls import unary, watching

if TYPE_CHECKING:
    from ml_inference.rpc.calls import Call
    from ml_inference.services import Services

SERVICE: Final = "grpc.health.v1.Health"
POLL_SECONDS: Final = 1.0
"""How soon a watcher hears of a change, at the latest."""

Status = HealthCheckResponse.ServingStatus
_STATUS: Final = {True: Status.SERVING, False: Status.NOT_SERVING, None: Status.SERVICE_UNKNOWN}


class Health:
    """Says what the registry says; nothing is kept here that could be out of date.

    Args:
        services: open.
        whole: names that stand for the whole service, beside the empty one.
        stopping: set when the server is to stop, which ends every watch.
    """

    def __init__(self, services: Services, whole: frozenset[str], stopping: asyncio.Event) -> None:
        self._registry = services.registry
        self._longest = services.settings.request_timeout
        self._whole = whole | {""}
        self._stopping = stopping

    def handlers(self) -> dict[str, Any]:
        """The service's calls by name."""
        return {
            "Check": unary("Check", self.check, HealthCheckRequest, self._longest, quiet=True),
            "Watch": watching("Watch", self.watch, HealthCheckRequest, self._longest),
        }

    async def check(self, request: HealthCheckRequest, _call: Call) -> HealthCheckResponse:
        """The state now.

        Raises:
            ModelNotFound: neither the service nor a model has that name.
        """
        status = self.status(request.service)
        if status == Status.SERVICE_UNKNOWN:
            raise ModelNotFound("no model has that name; the empty name is the service as a whole")
        return HealthCheckResponse(status=status)

    async def watch(self, request: HealthCheckRequest, call: Call) -> None:
        """The state now and after every change, until the client has enough or the server stops."""
        told = None
        while True:
            status = self.status(request.service)
            if status != told:
                await call.context.write(HealthCheckResponse(status=status))
                told = status
            if self._stopping.is_set():
                return
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def status(self, name: str) -> int:
        """A `ServingStatus`: the service serves when it is ready, a model when it answers."""
        serving: bool | None
        if name in self._whole:
            serving = not self._registry.unready()
        elif any(each.name == name for each in self._registry.statuses()):
            model = self._registry.loaded(name)
            serving = model is not None and model.healthy
        else:
            serving = None
        status: int = _STATUS[serving]
        return status
