"""From a bundle on disk to a model that has proved it runs: everything that may refuse a model, in one place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.contract.reconcile import card_of_graph, reconcile
from ml_inference.engine.device import usable_cores
from ml_inference.engine.memory import resident_bytes
from ml_inference.engine.session import OnnxSession
from ml_inference.engine.warmup import BatchSafety, warm_up
from ml_inference.errors import CardInvalid

if TYPE_CHECKING:
    from ml_inference.contract.card import GraphSignature, ModelCard
    from ml_inference.engine.device import Device
    from ml_inference.engine.session import Session
    from ml_inference.sources.base import ModelBundle


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be served.

    Attributes:
        threads: of one run; cores: what the process may use.
        seconds: that fetching is not part of; memory_bytes: resident memory that loading added, at least the file.
    """

    bundle: ModelBundle
    card: ModelCard
    session: Session
    device: Device
    safety: BatchSafety
    threads: int
    cores: int
    seconds: float
    memory_bytes: int


def load_model(bundle: ModelBundle, device: Device, threads: int | None = None) -> LoadedModel:
    """Read the card, open the session, make both agree, warm up. Blocking.

    Raises:
        CardInvalid: with every reason, when the model cannot be served.
    """
    started, before = time.perf_counter(), resident_bytes()
    cores = usable_cores()
    threads = threads or (max(1, cores - 1) if device.kind == "cpu" else 1)
    session = OnnxSession(bundle.model_path, device, threads)
    card = _card(bundle, session.signature)
    _check_device(card, device)
    safety = warm_up(session, card)
    memory = max(resident_bytes() - before, bundle.model_path.stat().st_size)
    return LoadedModel(
        bundle, card, session, device, safety, threads, cores, time.perf_counter() - started, memory
    )


def _card(bundle: ModelBundle, signature: GraphSignature) -> ModelCard:
    if bundle.item is None:
        return card_of_graph(bundle.name, signature)
    profile = None if bundle.profile is None else parse_profile(bundle.profile)
    return reconcile(read_card(bundle.item, profile), signature)


def _check_device(card: ModelCard, device: Device) -> None:
    wanted = card.accelerator
    if card.accelerator_constrained and wanted == "cuda" and device.kind != "cuda":
        pointer = "/properties/mlm:accelerator_constrained"
        message = f"the model runs on {wanted} only, and this service runs on {device}"
        raise CardInvalid(message, ((pointer, message),))
