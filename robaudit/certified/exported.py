"""A network as a program of ATen operations, with what cannot be certified refused by its name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from robaudit.errors import NotCertifiableError

BATCH = 3
"""The number of images in the program's input."""

_aten = torch.ops.aten
# Kept whole, since their parts are not piecewise linear or say less.
_KEPT = (
    _aten.linear.default,
    _aten.prelu.default,
    _aten.threshold.default,
    _aten.hardsigmoid.default,
    _aten.hardtanh.default,
    _aten.relu6.default,
    _aten.leaky_relu.default,
)
# Operations that are neither affine nor piecewise linear, in the words of PyTorch's documentation.
_WORDS = {
    "scaled_dot_product_attention": "softmax attention",
    "_native_multi_head_attention": "softmax attention",
    "_transformer_encoder_layer_fwd": "softmax attention",
    "softmax": "softmax",
    "_softmax": "softmax",
    "log_softmax": "log-softmax inside the network",
    "layer_norm": "layer normalisation",
    "native_layer_norm": "layer normalisation",
    "rms_norm": "RMS normalisation",
    "group_norm": "group normalisation",
    "instance_norm": "instance normalisation",
    "local_response_norm": "local response normalisation",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "softplus": "softplus",
    "hardswish": "hard swish",
    "glu": "a gated linear unit",
    "log_sigmoid": "log-sigmoid",
    "exp": "an exponential",
    "log": "a logarithm",
    "sqrt": "a square root",
    "rsqrt": "a square root",
    "erf": "the error function",
    "sin": "a sine",
    "cos": "a cosine",
    "round": "rounding",
    "floor": "rounding",
    "ceil": "rounding",
    "trunc": "rounding",
    "sign": "a sign",
    "fake_quantize_per_tensor_affine": "quantisation",
    "sort": "sorting",
    "topk": "the k largest of several activations",
    "argmax": "the index of the largest activation",
    "norm": "a norm of activations",
    "linalg_vector_norm": "a norm of activations",
    "lstm": "an LSTM",
    "gru": "a GRU",
}
_LOGGERS = ("torch._subclasses", "torch.fx.experimental", "torch._export", "torch.export")


def exported(plain: nn.Module, images: Tensor) -> ExportedProgram:
    """The network's forward pass as a functional program, after the names in it are checked.

    Raises:
        NotCertifiableError: it cannot be traced, or has an operation that is not certifiable.
    """
    with _quiet(), torch.no_grad():
        try:
            whole = torch.export.export(plain, (images,), strict=False)
        except Exception as error:  # whatever the network's own code raises in tracing
            raise NotCertifiableError(f"not certifiable: {_why(error)}") from error
        if found := refused(whole):
            raise NotCertifiableError(f"not certifiable: {_listed(found)}")
        table: Any = torch.export.default_decompositions()
        for operation in _KEPT:
            table.pop(operation, None)
        try:
            made: ExportedProgram = whole.run_decompositions(table)
            return made
        except Exception as error:
            raise NotCertifiableError(f"not certifiable: {_why(error)}") from error


def operation_of(node: torch.fx.Node) -> str:
    """The name of a call's operation, without namespace and overload; ``""`` of other nodes."""
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet).rpartition(".")[2]


def refused(program: ExportedProgram) -> list[str]:
    """The operations on activations that have no exact form of affine maps, ReLUs and tanhs."""
    found: list[str] = []
    inputs = set(program.graph_signature.user_inputs)
    depends: set[torch.fx.Node] = set()
    last = next(iter(reversed(program.graph.nodes))).args[0]
    for node in program.graph.nodes:
        if node.op == "placeholder":
            depends |= {node} if node.name in inputs else set()
            continue
        name = operation_of(node)
        if _draws(node):
            found.append("random numbers")
        if not depends.intersection(node.all_input_nodes):
            continue
        depends.add(node)
        word = _WORDS.get(name.removesuffix("_"))
        final = isinstance(last, tuple | list) and list(last) == [node]
        if word is not None and not (name == "log_softmax" and final):
            found.append(word)
    return list(dict.fromkeys(found))


def _draws(node: torch.fx.Node) -> bool:
    # The identity in evaluation mode, as the comparison of logits confirms, or named otherwise.
    name = operation_of(node).removesuffix("_")
    if name in _WORDS or name.endswith("dropout"):
        return False
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _why(error: Exception) -> str:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any("DataDependent" in type(part).__name__ for part in chain):
        return "the network's forward pass branches on values of activations"
    return f"torch.export cannot trace the network ({type(error).__name__})"


def _listed(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
