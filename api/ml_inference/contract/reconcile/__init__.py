"""The item says what a model means, its graph what runs: both are settled here, once, when the model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.card import ANY, Axis, InputSpec, ModelCard, OutputSpec, Task
from ml_inference.contract.mlm.values import Report
from ml_inference.contract.reconcile.inputs import settle_inputs
from ml_inference.contract.reconcile.outputs import settle_outputs

if TYPE_CHECKING:
    from ml_inference.contract.card import GraphSignature, TensorSpec


def reconcile(card: ModelCard, graph: GraphSignature) -> ModelCard:
    """Settle a card with the graph it comes with.

    Names, element types and fixed sizes become the graph's. Inputs that contradict it are refused; outputs are
    described wrong so often that the graph wins with a warning, except where classes would be given wrong names.

    Args:
        card: from `read_card`.
        graph: what the ONNX file declares.

    Returns:
        The card whose input and output names are the graph's, diagnostics added.

    Raises:
        CardInvalid: with every contradiction, at `onnx:NAME`.
    """
    report = Report(list(card.diagnostics))
    inputs = settle_inputs(card.inputs, graph.inputs, report)
    outputs = settle_outputs(card.outputs, graph, inputs, report)
    report.raise_problems("the model")
    return card.model_copy(
        update={"inputs": inputs, "outputs": outputs, "diagnostics": tuple(report.diagnostics)}
    )


def card_of_graph(name: str, graph: GraphSignature) -> ModelCard:
    """Make a card for an ONNX file without an item: its tensors, and no meaning.

    Raises:
        CardInvalid: a tensor's element type cannot be carried.
    """
    report = Report()
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype is None:
            report.refuse(
                f"onnx:{tensor.name}", "its element type cannot be carried (text, complex, sequence or map)"
            )
    if not graph.inputs or not graph.outputs:
        report.refuse("onnx:", f"the graph has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    report.raise_problems("the model")
    return ModelCard(
        name=name,
        inputs=tuple(
            InputSpec(name=t.name, axes=_bare_axes(t), shape=t.shape, dtype=t.dtype or "float32")
            for t in graph.inputs
        ),
        outputs=tuple(
            OutputSpec(
                name=t.name, task=Task.RAW, axes=_bare_axes(t), shape=t.shape, dtype=t.dtype or "float32"
            )
            for t in graph.outputs
        ),
    )


def _bare_axes(tensor: TensorSpec) -> tuple[Axis, ...]:
    """A first axis that is open, or of size 1, is the batch; of the others nothing is known."""
    batched = tensor.shape[:1] in {(ANY,), (1,)}
    return tuple(Axis.BATCH if i == 0 and batched else Axis.VALUE for i in range(len(tensor.shape)))
