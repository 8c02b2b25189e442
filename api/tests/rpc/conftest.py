"""What the gRPC tests share: a real server process, and the real server in this process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import onnxruntime
import pytest
from rpc.odd_models import write_odd_models
from system.conftest import start, stop
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from web.slow_model import write_models

from ml_inference.rpc import serve_grpc
from ml_inference.services import open_services
from ml_inference.settings import Settings
from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = write_models(tmp_path_factory.mktemp("rpc-models"))
    write_odd_models(folder)
    return folder


@pytest.fixture(scope="session")
def process(model_folder, tmp_path_factory):
    """`ml-inference serve` with warnings as errors, on the samples and the odd models."""
    folder = tmp_path_factory.mktemp("rpc-service")
    running = start(folder, MODEL_SOURCES=f"samples:,{model_folder}", PYTHONWARNINGS="error")
    yield running
    assert stop(running) == 0
    log = (folder / "server.log").read_text()
    assert "Traceback" not in log
    assert "Exception ignored" not in log


@pytest.fixture(scope="session")
def service(model_folder):
    """Open the server here: `async with service(api_key="k") as it: await it.stub.ServerLive(…)`."""

    @asynccontextmanager
    async def opened(**settings):
        usual = {"grpc_port": 0, "model_sources": ("samples:", str(model_folder))}
        async with (
            open_services(Settings(**{**usual, **settings})) as services,
            serve_grpc(services, "127.0.0.1") as server,
            grpc.aio.insecure_channel(server.address, UNLIMITED) as channel,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            yield SimpleNamespace(services=services, server=server, channel=channel, stub=stub)

    return opened


UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@pytest.fixture(scope="session")
def sample_session(tmp_path_factory):
    """A sample model's graph in ONNX Runtime alone."""

    def opened(name):
        bundle = SamplesSource(Path(tmp_path_factory.mktemp("samples"))).fetch(ModelReference(name, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(str(bundle.model_path), options, ["CPUExecutionProvider"])

    return opened


def request(model="landcover-share", inputs=None, **fields):
    """A request as stock clients build it: tensors in `raw_input_contents`."""
    arrays = {"reflectance": reflectance()} if inputs is None else inputs
    message = pb.ModelInferRequest(model_name=model, **fields)
    for name, array in arrays.items():
        message.inputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.float64): "FP64", np.dtype(np.uint8): "UINT8"}


def reflectance(seed=0, shape=(1, 4, 16, 16)):
    return np.random.default_rng(seed).random(shape, np.float32)


def slow(value=1.0):
    """A request that keeps model `slow` busy for as long as its pixel says."""
    return request("slow", {"image": np.full((1, 1, 2, 2), value, np.float32)})


async def failure(call):
    """The error with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
