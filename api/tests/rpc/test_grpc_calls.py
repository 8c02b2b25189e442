"""Every call of the service, asked by stock clients over a real connection."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToDict
from rpc.conftest import failure, reflectance, request, slow
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from ml_inference import __version__

SHARED_MEMORY_AND_SETTINGS = [
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
]


@pytest.fixture
def client(process):
    with triton.InferenceServerClient(process.grpc) as opened:
        yield opened


def tensor(name, array, datatype="FP32"):
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made


def test_the_server_is_alive_and_ready_and_says_what_it_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    told = client.get_server_metadata()
    assert (told.name, told.version) == ("ml-inference-processor", __version__)
    assert "statistics" in told.extensions


def test_asking_whether_a_model_is_ready_makes_it_so_and_those_that_cannot_be_are_not(client):
    deadline = time.monotonic() + 30
    for model in (("spectral-landcover",), ("slow", "1")):
        while not client.is_model_ready(*model):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not client.is_model_ready("slow", "99")
    assert not client.is_model_ready("broken")
    assert not client.is_model_ready("nothing-of-the-kind")


def test_metadata_and_config_agree_with_the_graph(client, sample_session):
    session = sample_session("landcover-share")
    told = client.get_model_metadata("landcover-share")
    config = client.get_model_config("landcover-share").config
    assert told.platform == config.platform == "onnxruntime_onnx"
    assert list(told.versions) == ["1"]
    for mine, configured, theirs in (
        (told.inputs, config.input, session.get_inputs()),
        (told.outputs, config.output, session.get_outputs()),
    ):
        assert [each.name for each in mine] == [each.name for each in theirs]
        assert [len(each.shape) for each in mine] == [len(each.shape) for each in theirs]
        for each, other in zip(mine, configured, strict=True):
            assert list(other.dims) == list(each.shape)[1:]
            assert each.datatype == "FP32"
    assert config.max_batch_size > 0
    assert config.HasField("dynamic_batching")


def test_an_answer_is_bit_equal_to_a_run_of_the_graph_alone(client, sample_session):
    for model in ("landcover-share", "ndvi"):
        session = sample_session(model)
        name = session.get_inputs()[0].name
        channels = session.get_inputs()[0].shape[1]
        for rows in (1, 3):
            array = reflectance(rows, (rows, channels, 33, 17))
            answer = client.infer(model, [tensor(name, array)], request_id=f"run-{rows}")
            (expected,) = session.run(None, {name: array})
            given = answer.as_numpy(session.get_outputs()[0].name)
            assert given.dtype == expected.dtype
            assert given.tobytes() == expected.tobytes()
            assert given.shape == expected.shape
            assert answer.get_response().id == f"run-{rows}"
            assert answer.get_response().model_version == "1"


def test_outputs_are_chosen_and_classified_with_the_cards_names(client, sample_session):
    array = reflectance(5)
    (shares,) = sample_session("landcover-share").run(None, {"reflectance": array})
    best = int(np.argmax(shares[0]))
    wanted = [triton.InferRequestedOutput("shares", class_count=2)]
    answer = client.infer("landcover-share", [tensor("reflectance", array)], outputs=wanted)
    first = answer.as_numpy("shares").reshape(-1)[0].decode()
    names = ["water", "bare-or-built-up", "sparse-vegetation", "moderate-vegetation", "dense-vegetation"]
    assert first == f"{shares[0, best]:f}:{best}:{names[best]}"


def test_compressed_messages_are_read(client):
    array = reflectance(6)
    plain = client.infer("landcover-share", [tensor("reflectance", array)]).as_numpy("shares")
    for algorithm in ("gzip", "deflate"):
        answer = client.infer(
            "landcover-share", [tensor("reflectance", array)], compression_algorithm=algorithm
        )
        assert answer.as_numpy("shares").tobytes() == plain.tobytes()


def test_statistics_count_requests_rows_and_runs(client):
    def told():
        (found,) = client.get_inference_statistics("landcover-share", "1").model_stats
        return found

    before = told()
    for _ in range(3):
        client.infer("landcover-share", [tensor("reflectance", reflectance(shape=(2, 4, 8, 8)))])
    with pytest.raises(InferenceServerException):
        client.infer("landcover-share", [tensor("reflectance", reflectance(shape=(2, 5, 8, 8)))])
    after = told()
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count - before.execution_count == 3
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    everyone = client.get_inference_statistics().model_stats
    assert "landcover-share" in {each.name for each in everyone}


def test_a_model_is_unloaded_and_loaded_again(client):
    def state():
        return next(each.state for each in client.get_model_repository_index().models if each.name == "ndvi")

    client.load_model("ndvi")
    assert state() == "READY"
    client.unload_model("ndvi")
    assert state() == "UNAVAILABLE"
    assert not client.is_model_ready("ndvi")
    with pytest.raises(InferenceServerException, match="unloaded"):
        client.infer("ndvi", [tensor("reflectance", reflectance(shape=(1, 2, 8, 8)))])
    client.load_model("ndvi")
    assert state() == "READY"
    assert client.infer("ndvi", [tensor("reflectance", reflectance(shape=(1, 2, 8, 8)))])


def test_the_index_can_be_narrowed_to_what_is_ready(process, client):
    client.load_model("ndvi")
    with grpc.insecure_channel(process.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ready = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    assert {each.state for each in ready} == {"READY"}
    everything = client.get_model_repository_index().models
    assert {"ndvi", "slow", "broken", "kinds"} <= {each.name for each in everything}


def test_a_load_that_brings_its_own_files_is_refused_in_words(client):
    with pytest.raises(InferenceServerException, match="come from its source") as caught:
        client.load_model("ndvi", config='{"max_batch_size": 1}')
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("name", SHARED_MEMORY_AND_SETTINGS)
def test_what_is_not_offered_says_so(process, name):
    request_class = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[name].input_type
    with grpc.insecure_channel(process.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), name)(request_class._concrete_class())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "no shared memory" in caught.value.details()


def test_every_call_of_the_service_is_either_answered_or_told_to_be_missing():
    methods = {each.name for each in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    answered = {
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelInfer",
        "ModelStreamInfer", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
    }  # fmt: skip
    assert methods == answered | set(SHARED_MEMORY_AND_SETTINGS)


def test_four_clients_at_once_each_get_their_own_answers(process, sample_session):
    """Batches are made of strangers' rows; none may get another's."""
    session = sample_session("landcover-share")
    wrong = []

    def ask(seed):
        with triton.InferenceServerClient(process.grpc) as client:
            for i in range(50):
                array = reflectance(1000 * seed + i, (1 + i % 3, 4, 16, 16))
                given = client.infer("landcover-share", [tensor("reflectance", array)]).as_numpy("shares")
                (expected,) = session.run(None, {"reflectance": array})
                if given.tobytes() != expected.tobytes():
                    wrong.append((seed, i))

    clients = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(60)
    assert not wrong


@pytest.mark.anyio
async def test_a_request_id_is_echoed_and_one_that_could_break_a_line_is_replaced(service):
    async with service() as it:
        for given, kept in (("run-7", True), ("a b", False), ("x" * 200, False)):
            call = it.stub.ServerLive(pb.ServerLiveRequest(), metadata=(("x-request-id", given),))
            await call
            told = dict(await call.trailing_metadata())["x-request-id"]
            assert (told == given) is kept
        error = await failure(it.stub.ModelInfer(request("nothing"), metadata=(("x-request-id", "run-8"),)))
        assert dict(error.trailing_metadata())["x-request-id"] == "run-8"


@pytest.mark.anyio
async def test_a_version_can_be_asked_for(service):
    async with service() as it:
        for version, factor in (("1", 1.0), ("2", 2.0), ("", 2.0)):
            message = slow(3.0)
            message.model_version = version
            answer = await it.stub.ModelInfer(message)
            assert answer.model_version == (version or "2")
            assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [3.0 * factor]
        told = MessageToDict(await it.stub.ModelMetadata(pb.ModelMetadataRequest(name="slow")))
        assert told["versions"] == ["1", "2"]
