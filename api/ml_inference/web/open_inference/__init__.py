"""The Open Inference Protocol over REST, and KServe's older V1 as a translation of it.

::

    health · inference · metadata · repository · v1       one group of routes each
     │
    wire · inflate · exchange · openapi                   bodies, and what the groups share
"""

from __future__ import annotations

from fastapi import APIRouter

from ml_inference.web.open_inference import health, inference, metadata, repository, v1

router = APIRouter()
for group in (health, metadata, inference, repository, v1):
    router.include_router(group.router)
