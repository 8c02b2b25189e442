"""The Open Inference Protocol (V2) without a wire: what REST and gRPC have in common.

::

    infer                            a request's tensors or images through a model; its answer selected and labelled
     │
    checks · describe · images       against the card · models as clients read them · encoded images in tensors
     │
    parameters ──► tensors ──► datatypes
    keys · failures · readiness      who may ask · what is said and logged of an error · whether a model answers
"""
