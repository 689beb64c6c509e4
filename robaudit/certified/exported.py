"""A network as a program of ATen operations, with what cannot be certified refused by its name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from robaudit.errors import NotCertifiableError

BATCH = 3
"""The number of images in the program's input."""
RANDOM = "random numbers"

# Kept whole: their parts are not piecewise linear, or mix the batch with other dimensions.
_KEPT = ("linear", "matmul", "einsum", "prelu", "threshold", "hardsigmoid", "rrelu", "stack")
# Operations that are neither affine nor piecewise linear, in the words of PyTorch's documentation.
_WORDS = {
    "_native_batch_norm_legit_functional": "batch normalisation by the statistics of each batch",
    "_native_batch_norm_legit": "batch normalisation by the statistics of each batch",
    "_native_multi_head_attention": "softmax attention",
    "_softmax": "softmax",
    "_transformer_encoder_layer_fwd": "softmax attention",
    "acos": "an arc cosine",
    "argmax": "the index of the largest activation",
    "asin": "an arc sine",
    "atan": "an arc tangent",
    "bernoulli": "random numbers",
    "ceil": "rounding",
    "celu": "CELU",
    "cos": "a cosine",
    "cosine_similarity": "a cosine similarity",
    "cumprod": "a product of activations",
    "elu": "ELU",
    "erf": "the error function",
    "exp": "an exponential",
    "expm1": "an exponential",
    "fake_quantize_per_channel_affine": "quantisation",
    "fake_quantize_per_tensor_affine": "quantisation",
    "floor": "rounding",
    "fmod": "a remainder",
    "gelu": "GELU",
    "glu": "a gated linear unit",
    "grid_sampler": "a grid sampler",
    "group_norm": "group normalisation",
    "gru": "a GRU",
    "hardshrink": "hard shrinkage, which is not continuous",
    "hardswish": "hard swish",
    "instance_norm": "instance normalisation",
    "layer_norm": "layer normalisation",
    "linalg_norm": "a norm of activations",
    "linalg_vector_norm": "a norm of activations",
    "log": "a logarithm",
    "log1p": "a logarithm",
    "log_sigmoid": "log-sigmoid",
    "log_softmax": "log-softmax inside the network",
    "logsumexp": "log-sum-exp",
    "lstm": "an LSTM",
    "median": "a median",
    "mish": "Mish",
    "native_group_norm": "group normalisation",
    "native_layer_norm": "layer normalisation",
    "norm": "a norm of activations",
    "pow": "a power of activations",
    "prod": "a product of activations",
    "quantize_per_tensor": "quantisation",
    "reciprocal": "a reciprocal",
    "remainder": "a remainder",
    "rms_norm": "RMS normalisation",
    "round": "rounding",
    "rsqrt": "a square root",
    "scaled_dot_product_attention": "softmax attention",
    "selu": "SELU",
    "sign": "a sign",
    "silu": "SiLU",
    "sin": "a sine",
    "softmax": "softmax",
    "softshrink": "soft shrinkage",
    "softplus": "softplus",
    "sort": "sorting",
    "sqrt": "a square root",
    "square": "a power of activations",
    "std": "a standard deviation of activations",
    "topk": "the k largest of several activations",
    "trunc": "rounding",
    "upsample_bicubic2d": "bicubic interpolation",
    "var": "a variance of activations",
    "var_mean": "a variance of activations",
}
_WORDS |= dict.fromkeys(("eq", "ge", "gt", "le", "lt", "ne"), "a comparison of activations")
_IDENTITIES = (
    *("to", "clone", "alias", "detach", "contiguous", "dropout", "flatten", "view", "reshape"),
    "_assert_tensor_metadata",
)
_PRODUCTS = ("addmm", "baddbmm", "bmm", "einsum", "linear", "matmul", "mm", "mul")


def exported(network: nn.Module, images: Tensor) -> ExportedProgram | None:
    """The network's forward pass as a functional program, after the names in it are checked.

    Returns:
        ``None`` where it cannot be traced.

    Raises:
        NotCertifiableError: it branches on values, or has an operation that is not certifiable.
    """
    table: Any = torch.export.default_decompositions()
    for name in _KEPT:
        table.pop(getattr(torch.ops.aten, name).default, None)
    with _quiet(), torch.no_grad():
        try:
            if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
                network = _traced(network, images)
            whole = torch.export.export(network, (images,), strict=False)
        except Exception as error:  # whatever the network's own code raises in tracing
            if _branches(error):
                raise refusal("its forward pass branches on values of tensors") from error
            return None
        if found := _refused(whole):
            raise refusal(_listed(found))
        try:
            made: ExportedProgram = whole.run_decompositions(table)
        except Exception:
            return None
        return made


def _traced(network: nn.Module, images: Tensor) -> nn.Module:
    """A network of TorchScript, which torch.export does not take, as a module of torch.fx.

    The tensors are fake, as those of torch.export: of others, values could be read unseen.
    """

    def forward(x: Tensor) -> Any:
        return network(x)

    traced: Any = make_fx(forward, tracing_mode="fake", _allow_non_fake_inputs=True)(images)
    assert isinstance(traced, nn.Module)
    return traced


def operation_of(node: torch.fx.Node) -> str:
    """The name of a call's operation, without namespace and overload; ``""`` of other nodes."""
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet).rpartition(".")[2]


def word_for(name: str) -> str | None:
    """What an operation that is not certifiable is called; ``None`` of others."""
    return _WORDS.get(name.removesuffix("_"))


def refusal(reason: str) -> NotCertifiableError:
    """The exception for a network that is not certifiable."""
    return NotCertifiableError(f"not certifiable: {reason}")


def _refused(program: ExportedProgram) -> list[str]:
    """The operations on activations that have no exact form of affine maps, ReLUs and tanhs."""
    found = ["automatic mixed precision"] if _autocasts(program) else []
    depends: set[torch.fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs:
            depends.add(node)
        if node.op != "call_function":
            continue
        if _surely_draws(node):
            found.append(RANDOM)
        taken = [part for part in tree_leaves((node.args, node.kwargs)) if part in depends]
        name = operation_of(node).removesuffix("_")
        if not taken or name.startswith("new_") or name.endswith("_like"):
            continue  # of a tensor's shape and type only
        depends.add(node)
        if name in _PRODUCTS and len(taken) > 1:
            found.append("a product of two activations")
        word = word_for(name)
        if word is not None and not (name == "log_softmax" and _is_result(node)):
            found.append(word)
    return list(dict.fromkeys(found))


def _is_result(node: torch.fx.Node) -> bool:
    """Whether nothing but the identity is applied to a value before it is the output."""
    return all(
        user.op == "output" or (operation_of(user) in _IDENTITIES and _is_result(user))
        for user in node.users
    )


def _autocasts(program: ExportedProgram) -> bool:
    modules = program.graph_module.modules()
    graphs = [module.graph for module in modules if isinstance(module, torch.fx.GraphModule)]
    regions = (node for graph in graphs for node in graph.nodes)
    # Its arguments: device, type, whether it is on.
    return any(str(n.target) == "wrap_with_autocast" and n.args[2] for n in regions)


def draws(node: torch.fx.Node) -> bool:
    """Whether a call draws at random."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _surely_draws(node: torch.fx.Node) -> bool:
    # Others are the identity or deterministic in evaluation mode, or named otherwise.
    name = operation_of(node).removesuffix("_")
    return draws(node) and not (name in _WORDS or name == "rrelu" or name.endswith("dropout"))


def _branches(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, is that of a condition on values."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if "DataDependent" in type(error).__name__:
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def _listed(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings, logs and half a program that torch shows where a trace fails."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
