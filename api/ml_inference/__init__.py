"""ML Inference Processor: a model, its STAC MLM item, and nothing else, turned into a service."""

__version__ = "0.1.0"
