"""Read a program of ATen operations as a graph; what no activation enters is computed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map

from robaudit.certified.exported import BATCH, operation_of
from robaudit.certified.nodes import Graph
from robaudit.certified.operators import Convolution, Dense, Reshape, Shape
from robaudit.certified.rewriting import Builder
from robaudit.errors import NotCertifiableError

_MIXED = "the network mixes the examples of a batch"


@dataclass(frozen=True)
class Activation:
    """A value that depends on the image: the node of that index."""

    index: int


def refusal(reason: str) -> NotCertifiableError:
    """The exception for what is not certifiable."""
    return NotCertifiableError(f"not certifiable: {reason}")


class Reader:
    """A program that is being read.

    Attributes:
        build: the graph so far.
        out: the shape of the present operation's output, batch included.
    """

    def __init__(self, shape: Shape) -> None:
        self.build = Builder(shape)
        self.out: Shape = ()

    def shape(self, x: Activation) -> Shape:
        """Of one example."""
        return self.build.shape(x.index)

    def dim(self, x: Activation, dim: int) -> int:
        """A dimension of an example, given one of the batch."""
        rank = len(self.shape(x)) + 1
        dim %= rank
        if dim == 0:
            raise refusal(_MIXED)
        return dim - 1

    def row(self, value: Any, rank: int) -> Any:
        """A constant as it meets one example of ``rank`` dimensions; numbers as they are."""
        if not isinstance(value, Tensor) or value.ndim <= rank:
            return value
        if value.ndim > rank + 1 or not bool((value == value[:1]).all()):
            raise refusal(_MIXED)
        return value[0]

    def activation(self, value: Any) -> Activation:
        """A constant tensor with a batch dimension as an activation; activations as they are."""
        if isinstance(value, Activation):
            return value
        if len(value) not in (1, BATCH):
            raise refusal(_MIXED)
        return Activation(self.build.constant(self.row(value, value.ndim - 1)))

    def rearranged(
        self, function: Callable[..., Tensor], *x: Activation, fan_in: int = 1
    ) -> Activation:
        """A function of tensors with a batch dimension; linear, its coefficients not negative."""
        return Activation(self.build.rearranged(function, *(v.index for v in x), fan_in=fan_in))

    def broadcast(self, x: Activation, shape: Shape) -> int:
        """The node of ``x`` with its examples expanded to a shape."""
        if self.shape(x) == shape:
            return x.index
        if len(self.shape(x)) != len(shape):
            raise refusal(_MIXED)
        return self.rearranged(lambda v: v.expand(len(v), *shape), x).index


Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register what reads an operation: called with the reader and the arguments in order."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def read(program: ExportedProgram) -> Graph:
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
    reader: Reader | None = None
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == image:
            reader = Reader(tuple(node.meta["val"].shape[1:]))
            values[node] = Activation(0)
        elif node.op == "placeholder":
            values[node] = _constant(constants[named[node.name]])
        elif node.op == "call_function":
            assert reader is not None
            values[node] = _called(reader, node, values)
        elif node.op == "output":
            outputs = {spec.name: values[spec] for spec in node.all_input_nodes}
            (result,) = (outputs[str(name)] for name in signature.user_outputs)
            assert reader is not None
            return reader.build.graph(reader.activation(result).index)
        else:
            raise refusal(f"the network's program has a {node.op} node")
    raise AssertionError("a program ends with its output")


def _called(reader: Reader, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
    given: Any = torch.fx.map_arg((node.args, node.kwargs), lambda n: values[n])
    args, kwargs = given
    if node.target is operator.getitem:
        return args[0][args[1]]
    target: Any = node.target
    if not any(isinstance(leaf, Activation) for leaf in tree_leaves((args, kwargs))):
        return tree_map(_constant, target(*args, **kwargs))
    name = operation_of(node)
    if name not in HANDLERS:
        raise refusal(f"the operation {name or target}")
    made = node.meta.get("val")
    shaped = made[0] if isinstance(made, tuple | list) else made
    reader.out = tuple(shaped.shape) if isinstance(shaped, Tensor) else ()
    if isinstance(shaped, Tensor) and (not reader.out or reader.out[0] != BATCH):
        raise refusal(_MIXED)
    reader.build.name = _place(node) or name
    return HANDLERS[name](reader, *_in_order(target, args, kwargs))


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


@handles("clone", "alias", "detach", "contiguous", "lift_fresh_copy", "dropout")
def _identity(reader: Reader, x: Activation, *_: Any) -> Activation:
    return x


@handles("_to_copy", "to")
def _cast(reader: Reader, x: Activation, dtype: torch.dtype | None, *_: Any) -> Activation:
    if dtype not in (None, torch.float32, torch.float64):
        raise refusal(f"a cast to {str(dtype).removeprefix('torch.')}")
    return x


@handles("convolution")
def _convolution(
    reader: Reader, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Activation:  # fmt: skip
    if not isinstance(x, Activation) or isinstance(weight, Activation):
        raise refusal("a product of two activations")
    dims = weight.ndim - 2

    def sizes(value: Sequence[int]) -> Shape:
        return tuple(value) if len(value) == dims else tuple(value) * dims

    made = Convolution(
        (reader.shape(x),),
        reader.out[1:],
        weight,
        bias,
        *(sizes(stride), sizes(padding), sizes(dilation)),
        groups,
        transposed,
    )
    return Activation(reader.build.affine(made, x.index))


@handles("linear")
def _linear(reader: Reader, x: Any, weight: Any, bias: Any) -> Activation:
    if not isinstance(x, Activation) or isinstance(weight, Activation):
        raise refusal("a product of two activations")
    made = Dense((reader.shape(x),), reader.out[1:], weight, bias)
    return Activation(reader.build.affine(made, x.index))


@handles("_native_batch_norm_legit_no_training")
def _batch_norm(
    reader: Reader, x: Activation, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
) -> tuple[Activation, None, None]:
    def column(value: Tensor) -> Tensor:
        return value.reshape(-1, *(1 for _ in reader.shape(x)[1:]))

    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    shift = torch.zeros_like(mean) if bias is None else bias
    size = scale.abs() * mean.abs() + shift.abs()
    made = reader.build.weighted(
        [x.index], [column(scale)], column(shift - scale * mean), column(size)
    )
    return Activation(made), None, None


@handles("add")
def _add(reader: Reader, x: Any, y: Any, alpha: Any = 1) -> Activation:
    return _sum(reader, x, y, 1, alpha)


@handles("sub")
def _sub(reader: Reader, x: Any, y: Any, alpha: Any = 1) -> Activation:
    return _sum(reader, x, y, 1, -alpha)


@handles("rsub")
def _rsub(reader: Reader, x: Any, y: Any, alpha: Any = 1) -> Activation:
    return _sum(reader, x, y, -alpha, 1)


def _sum(reader: Reader, x: Any, y: Any, a: float, b: float) -> Activation:
    shape = reader.out[1:]
    pairs = [(x, float(a)), (y, float(b))]
    nodes = [(v, w) for v, w in pairs if isinstance(v, Activation)]
    constant = [reader.row(v, len(shape)) * w for v, w in pairs if not isinstance(v, Activation)]
    made = reader.build.weighted(
        [reader.broadcast(v, shape) for v, _ in nodes],
        [None if w == 1 else w for _, w in nodes],
        constant[0] if constant else None,
    )
    return Activation(made)


@handles("mul")
def _mul(reader: Reader, x: Any, y: Any) -> Activation:
    x, y = (x, y) if isinstance(x, Activation) else (y, x)
    if isinstance(y, Activation):
        raise refusal("a product of two activations")
    shape = reader.out[1:]
    weight = reader.row(y, len(shape))
    return Activation(reader.build.weighted([reader.broadcast(x, shape)], [weight]))


@handles("div")
def _div(reader: Reader, x: Any, y: Any, rounding: Any = None) -> Activation:
    if isinstance(y, Activation):
        raise refusal("a quotient of two activations" if isinstance(x, Activation) else "1 / x")
    if rounding is not None:
        raise refusal("rounding")
    made: Activation = _mul(reader, x, 1 / y)
    return made


@handles("neg")
def _neg(reader: Reader, x: Activation) -> Activation:
    return Activation(reader.build.weighted([x.index], [-1.0]))


@handles("relu")
def _relu(reader: Reader, x: Activation) -> Activation:
    return Activation(reader.build.relu(x.index))


@handles("view", "reshape", "squeeze", "unsqueeze", "_unsafe_view", "flatten")
def _reshape(reader: Reader, x: Activation, *_: Any) -> Activation:
    inside, shape = reader.shape(x), reader.out[1:]
    if inside == shape:
        return x
    made = Reshape((inside,), shape)
    return Activation(reader.build.affine(made, x.index))


@handles("_log_softmax", "log_softmax")
def _log_softmax(reader: Reader, x: Activation, dim: int, *_: Any) -> Activation:
    # Only of the logits: others are refused before. The differences of logits stay the same.
    if len(reader.shape(x)) != 1 or reader.dim(x, dim) != 0:
        raise refusal("log-softmax inside the network")
    return x
