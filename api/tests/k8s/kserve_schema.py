"""KServe's ServingRuntime (v1alpha1) and InferenceService (v1beta1) as JSON Schema, written from their field lists.

Only what the manifests may use is here, and nothing else passes: a cluster drops a key that it does not know in silence.
"""

from __future__ import annotations

from typing import Any

type Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
MAP: Schema = {"type": "object", "additionalProperties": TEXT}
LABEL: Schema = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"}
PROTOCOL: Schema = {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}


def closed(properties: Schema, *required: str) -> Schema:
    """An object with these keys and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def listed(items: Schema) -> Schema:
    """A list of at least one."""
    return {"type": "array", "items": items, "minItems": 1}


QUANTITIES = {
    "type": "object",
    "propertyNames": {"enum": ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]},
    "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"},
}
PROBE = closed(
    {
        "httpGet": closed({"path": {"type": "string", "pattern": "^/"}, "port": PORT}, "path", "port"),
        "initialDelaySeconds": COUNT,
        "periodSeconds": COUNT,
        "timeoutSeconds": COUNT,
        "failureThreshold": COUNT,
    },
    "httpGet",
)
SECURITY = closed(
    {
        "runAsNonRoot": {"const": True},
        "readOnlyRootFilesystem": {"const": True},
        "allowPrivilegeEscalation": {"const": False},
        "capabilities": closed({"drop": {"const": ["ALL"]}}, "drop"),
        "seccompProfile": closed({"type": {"const": "RuntimeDefault"}}, "type"),
    },
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "capabilities",
    "seccompProfile",
)
ENV = listed(closed({"name": {"type": "string", "pattern": "^[A-Z_]+$"}, "value": TEXT}, "name", "value"))
PORTS = listed(
    closed({"name": LABEL, "containerPort": PORT, "protocol": {"const": "TCP"}}, "containerPort", "protocol")
)
RESOURCES = closed({"requests": QUANTITIES, "limits": QUANTITIES}, "requests", "limits")

CONTAINER = closed(
    {
        "name": {"const": "kserve-container"},
        "image": TEXT,
        "command": listed(TEXT),
        "args": listed(TEXT),
        "env": ENV,
        "resources": RESOURCES,
        "readinessProbe": PROBE,
        "livenessProbe": PROBE,
        "securityContext": SECURITY,
        "volumeMounts": listed(
            closed({"name": LABEL, "mountPath": {"type": "string", "pattern": "^/"}}, "name", "mountPath")
        ),
    },
    "name",
    "image",
    "args",
    "resources",
    "securityContext",
)

SERVING_RUNTIME = closed(
    {
        "apiVersion": {"const": "serving.kserve.io/v1alpha1"},
        "kind": {"enum": ["ServingRuntime", "ClusterServingRuntime"]},
        "metadata": closed({"name": LABEL, "labels": MAP, "annotations": MAP}, "name"),
        "spec": closed(
            {
                "annotations": MAP,
                "supportedModelFormats": listed(
                    closed(
                        {
                            "name": TEXT,
                            "version": {"type": "string", "pattern": r"^\d+(\.\d+){0,2}$"},
                            "autoSelect": FLAG,
                            "priority": {"type": "integer", "minimum": 1},
                        },
                        "name",
                    )
                ),
                "multiModel": FLAG,
                "protocolVersions": listed(PROTOCOL),
                "containers": {**listed(CONTAINER), "maxItems": 1},
                "volumes": listed(
                    closed({"name": LABEL, "emptyDir": closed({"sizeLimit": TEXT})}, "name", "emptyDir")
                ),
            },
            "supportedModelFormats",
            "protocolVersions",
            "containers",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)

INFERENCE_SERVICE = closed(
    {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": closed({"name": LABEL, "labels": MAP, "annotations": MAP}, "name"),
        "spec": closed(
            {
                "predictor": closed(
                    {
                        "minReplicas": COUNT,
                        "maxReplicas": COUNT,
                        "model": closed(
                            {
                                "modelFormat": closed({"name": TEXT, "version": TEXT}, "name"),
                                "protocolVersion": PROTOCOL,
                                "runtime": LABEL,
                                "storageUri": {
                                    "type": "string",
                                    "pattern": "^(pvc|s3|gs|https?|hf|oci|hdfs|webhdfs)://.+",
                                },
                                "env": ENV,
                                "ports": {**PORTS, "maxItems": 1},
                                "resources": RESOURCES,
                            },
                            "modelFormat",
                            "storageUri",
                        ),
                    },
                    "model",
                )
            },
            "predictor",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
