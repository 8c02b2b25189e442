"""The server's life: how it starts, how it refuses to, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from rpc.conftest import failure, reflectance, slow
from system.conftest import start, stop
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from web.slow_model import FOREVER

from ml_inference.errors import ConfigurationInvalid

WITHOUT_GRPC = "import sys; sys.modules['grpc'] = None; from ml_inference.cli import main; main()"


def serve(folder, *args, code=None, **environ):
    """`ml-inference serve` that is expected to end by itself."""
    command = ["-m", "ml_inference"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *command, "serve", "--port", "0", *args],
        cwd=folder,
        env={**os.environ, "MODEL_SOURCES": "samples:", "EOTDL_DOWNLOAD_PATH": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_grpc_port_in_use_is_one_line_that_names_the_setting(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, environ in ((["--grpc-port", str(port)], {}), ([], {"GRPC_PORT": str(port)})):
            done = serve(tmp_path, *args, **environ)
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert f"port {port} of 127.0.0.1 is in use" in line
            assert "GRPC_PORT or --grpc-port" in line


@pytest.mark.anyio
async def test_two_services_never_share_a_port(service):
    async with service() as it:
        port = int(it.server.address.rpartition(":")[2])
        with pytest.raises(ConfigurationInvalid, match=f"GRPC_PORT={port}"):
            async with service(grpc_port=port):
                pass


def test_without_the_extra_an_asked_for_port_is_refused_with_the_command_that_helps(tmp_path):
    done = serve(tmp_path, code=WITHOUT_GRPC, GRPC_PORT="0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install 'ml-inference-processor[grpc]'" in line


@pytest.mark.parametrize("setting", [{}, {"GRPC_PORT": "off"}])
def test_without_the_extra_http_is_served_and_the_log_says_so_once(tmp_path, setting):
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_PORT"}
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, "-u", "-c", WITHOUT_GRPC, "serve", "--port", "0"],
            cwd=tmp_path,
            env={**environ, "MODEL_SOURCES": "samples:", **setting},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            assert httpx.get(f"{url}/health/live").status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(30) == 0
        assert "gRPC" not in rest
        log.seek(0)
        told = [line for line in log if "gRPC is off" in line]
    assert len(told) == (0 if setting else 1)


def test_with_json_logs_the_address_is_in_the_first_line(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "ml_inference", "serve", "--port", "0", "--grpc-port", "0"],
        cwd=tmp_path,
        env={**os.environ, "MODEL_SOURCES": "samples:", "LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = json.loads(process.stderr.readline())
            with grpc.insecure_channel(line["grpc"]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert stub.ServerLive(pb.ServerLiveRequest(), timeout=10).live
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert all(json.loads(each)["level"] == "info" for each in rest.splitlines())


def test_the_greeting_names_the_address_before_the_request_to_paste(tmp_path):
    subprocess.run([sys.executable, "-m", "ml_inference", "samples", "samples"], cwd=tmp_path, check=True)
    server = start(tmp_path)
    assert server.process.stdout.readline() == "Try it:\n"
    assert server.url in server.process.stdout.readline()
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=10).live
    assert stop(server) == 0


def test_off_means_that_nothing_listens_and_nothing_is_said(tmp_path):
    server = start(tmp_path, GRPC_PORT="off")
    assert server.grpc == ""
    assert stop(server) == 0


def test_sigterm_under_load_loses_no_accepted_request(tmp_path):
    server = start(tmp_path)
    array = reflectance(1, (1, 4, 64, 64))
    ended, answered = [], []

    def ask():
        tensor = triton.InferInput("reflectance", array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        with triton.InferenceServerClient(server.grpc) as client:
            while True:
                try:
                    answered.append(client.infer("landcover-share", [tensor]).as_numpy("shares"))
                except triton.InferenceServerException as error:
                    ended.append(error.status())
                    return

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1.5)
    assert stop(server) == 0
    for caller in callers:
        caller.join(30)
    assert len(answered) > 8
    assert np.ptp(np.stack(answered), axis=0).max() == 0
    assert set(ended) <= {"StatusCode.UNAVAILABLE"}
    log = (tmp_path / "server.log").read_text()
    assert len(re.findall(r"code=OK method=ModelInfer", log)) == len(answered)
    assert "code=INTERNAL" not in log
    assert "Traceback" not in log


def test_a_second_ctrl_c_waits_for_nobody(tmp_path, model_folder):
    server = start(tmp_path, MODEL_SOURCES=str(model_folder), SHUTDOWN_GRACE="300", REQUEST_TIMEOUT="300")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(slow())
        call = stub.ModelInfer.future(slow(FOREVER))
        time.sleep(0.5)
        server.process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 130
        assert call.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    server.process.stdout.close()


@pytest.mark.anyio
async def test_a_stop_lets_what_runs_finish_and_takes_nothing_new(service):
    async with service() as it:
        await it.stub.ModelInfer(slow())
        running = it.stub.ModelInfer(slow(3e6))
        await asyncio.sleep(0.2)
        stopping = asyncio.create_task(it.server.stop(20))
        for moment in (0.02, 0.3):  # while new calls are refused in words, and when nothing listens any more
            await asyncio.sleep(moment)
            error = await failure(it.stub.ModelInfer(slow()))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert (await running).raw_output_contents
        await stopping


@pytest.mark.anyio
async def test_after_the_grace_what_still_runs_is_cancelled_and_counted(service):
    async with service(batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        running = it.stub.ModelInfer(slow(FOREVER))
        await asyncio.sleep(0.2)
        await it.server.stop(0.3)
        error = await failure(running)
        assert error.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        labels = {"model": "slow", "version": "2", "reason": "cancelled"}
        registry = it.services.metrics.registry
        async with asyncio.timeout(10):
            while registry.get_sample_value("model_inference_rejected_total", labels) != 1:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(10_000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(500)]
)  # fmt: skip
def test_bytes_that_are_no_grpc_are_hung_up_on_and_nobody_else_notices(process, data):
    host, _, port = process.grpc.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    with connection, contextlib.suppress(OSError):  # it may hang up before we do
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    with triton.InferenceServerClient(process.grpc) as client:
        assert client.is_server_live()
