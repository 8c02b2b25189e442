"""The four clients that `tritonclient` publishes behind one face, so that one table of tests fits them all."""

from __future__ import annotations

import asyncio
import gc
import warnings
from importlib import import_module
from urllib.parse import urlsplit

KINDS = ("http", "http.aio", "grpc", "grpc.aio")


class Stock:
    """A stock client; its own methods, awaited where they must be.

    Args:
        kind: one of `KINDS`.
        server: of `system.conftest`.
    """

    def __init__(self, kind, server):
        self.grpc = kind.startswith("grpc")
        self.api = import_module(f"tritonclient.{kind.partition('.')[0]}")
        self.runner = asyncio.Runner() if kind.endswith("aio") else None
        address = server.grpc if self.grpc else urlsplit(server.url).netloc
        make = import_module(f"tritonclient.{kind}").InferenceServerClient

        async def connect():
            return make(address)

        self.client = self.runner.run(connect()) if self.runner else make(address)

    def __getattr__(self, name):
        method = getattr(self.client, name)
        return (lambda *a, **k: self._awaited(method(*a, **k))) if self.runner else method

    def _awaited(self, work):
        with warnings.catch_warnings():
            # http.aio leaves the body of a health check unread, and aiohttp warns of it.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                return self.runner.run(work)
            finally:
                gc.collect(0)

    def told(self, name, *arguments):
        """What a `get_…` method tells, as plain values."""
        told = getattr(self, f"get_{name}")(*arguments, **({"as_json": True} if self.grpc else {}))
        return told["config"] if self.grpc and name == "model_config" else told

    def index(self):
        """The repository's models by name."""
        told = self.told("model_repository_index")
        return {each["name"]: each for each in (told["models"] if self.grpc else told)}

    def tensor(self, name, array, datatype="FP32", **more):
        tensor = self.api.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **({} if self.grpc else more))
        return tensor

    def output(self, name, binary=True, classes=0):
        how = {} if self.grpc else {"binary_data": binary}
        return self.api.InferRequestedOutput(name, class_count=classes, **how)

    def answer(self, result):
        """The answer without its tensors, as plain values."""
        return result.get_response(**({"as_json": True} if self.grpc else {}))

    def close(self):
        if self.runner is None:
            self.client.close()
        else:
            self._awaited(self.client.close())
            self.client = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
            self.runner.close()
