"""Read a program of ATen operations as a graph; what no activation enters is computed."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map

from robaudit.certified.affine_calls import AFFINE
from robaudit.certified.exported import BATCH, RANDOM, draws, operation_of, refusal, word_for
from robaudit.certified.nodes import Graph
from robaudit.certified.piecewise_calls import PIECEWISE
from robaudit.certified.reader import MIXED, Activation, Handler, Reader, Stack
from robaudit.certified.rearranging_calls import REARRANGING
from robaudit.certified.stack_calls import STACKED, stack

_HANDLERS: Mapping[str, Handler] = {
    **AFFINE,
    **REARRANGING,
    **PIECEWISE,
    "stack": stack,
}


@dataclass(frozen=True)
class Reading:
    """A graph, and how it was read.

    Attributes:
        single: the program has activations in float32.
        rounded: the program computes constants that a network in float32 has to round.
    """

    graph: Graph
    single: bool
    rounded: bool


@torch.no_grad()
def read(program: ExportedProgram) -> Reading:
    """The graph of a program of functional ATen operations.

    Raises:
        NotCertifiableError: an operation on activations is neither affine nor piecewise linear, or
            mixes the examples of a batch.
    """
    signature = program.graph_signature
    (image,) = signature.user_inputs
    constants: dict[str, Any] = {**program.state_dict, **program.constants}
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values: dict[torch.fx.Node, Any] = {}
    reader = Reader((), torch.float32)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == image:
            reader = Reader(tuple(node.meta["val"].shape[1:]), node.meta["val"].dtype)
            values[node] = Activation(0)
        elif node.op == "placeholder":
            values[node] = constants[named[node.name]]
        elif node.op == "call_function":
            values[node] = _called(reader, node, values)
        elif node.op == "output":
            outputs = {spec.name: values[spec] for spec in node.all_input_nodes}
            if len(signature.user_outputs) != 1:
                raise refusal("the network has several outputs, not logits alone")
            result = outputs[str(signature.user_outputs[0])]
            graph = reader.build.graph(reader.activation(_constant(result)).index)
            return Reading(graph, reader.single, reader.rounded)
        else:
            raise refusal("the network's program has parts of its own")
    raise AssertionError("a program ends with its output")


def _called(reader: Reader, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
    given: Any = torch.fx.map_arg((node.args, node.kwargs), lambda n: values[n])
    args, kwargs = given
    target: Any = node.target
    if target is operator.getitem:
        return args[0][args[1]]
    name = operation_of(node)
    if draws(node) and name not in _HANDLERS:
        raise refusal(RANDOM)
    leaves = tree_leaves((args, kwargs))
    stacked = any(isinstance(leaf, Stack) for leaf in leaves)
    if not stacked and not any(isinstance(leaf, Activation) for leaf in leaves):
        made = target(*args, **kwargs)
        if name.startswith("empty"):
            made.zero_()  # memory that the program fills later
        tree_map(reader.computed, made)
        return made
    handlers = STACKED if stacked else _HANDLERS
    if name not in handlers:
        raise refusal(word_for(name) or (MIXED if stacked else f"the operation {name or target}"))
    outputs = [part for part in tree_leaves(node.meta.get("val")) if isinstance(part, Tensor)]
    if outputs:
        if name != "stack" and outputs[0].shape[:1] != (BATCH,):
            raise refusal(MIXED)
        reader.single |= outputs[0].dtype == torch.float32
        reader.out = tuple(outputs[0].shape[1:])
    reader.build.name = _place(node) or name
    return handlers[name](reader, *tree_map(_constant, _in_order(target, args, kwargs)))


def _in_order(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """All arguments of an operation in the order of its schema, with its defaults."""
    schema = target._schema.arguments
    given = dict(zip((argument.name for argument in schema), args, strict=False)) | dict(kwargs)
    return [given.get(argument.name, argument.default_value) for argument in schema]


def _place(node: torch.fx.Node) -> str:
    """The name of the module that a call belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [name for name, _ in stack.values()]
    return str(path[-1]) if path else ""


def _constant(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.dtype not in (torch.float32, torch.float64):
        raise refusal(f"arithmetic in {str(value.dtype).removeprefix('torch.')}")
    return value.detach().double()
