"""What docs/open-inference.md says of gRPC: every call, every status, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tritonclient.grpc import service_pb2 as pb

from ml_inference.rpc.errors import CODE_OF

PAGE = (
    (Path(__file__).resolve().parents[3] / "docs" / "open-inference.md").read_text().partition("## gRPC")[2]
)


def test_every_status_is_told_and_no_other():
    told = set(re.findall(r"`([A-Z]+_?[A-Z]+)`", PAGE.partition("| status | when |")[2]))
    settings = {"MAX_BODY_BYTES", "MAX_PIXELS"}
    assert told - settings == {code.name for code in CODE_OF.values()}


def test_every_call_that_is_offered_is_told_and_no_other():
    methods = {each.name for each in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    kept_back = {
        name for name in methods if "SharedMemory" in name or name in {"TraceSetting", "LogSettings"}
    }
    assert methods & set(re.findall(r"`(\w+)`", PAGE)) == methods - kept_back
