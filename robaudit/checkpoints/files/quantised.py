"""Recognises quantised weights by keys and dtypes. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

ADVICE = (
    "Audit the float checkpoint that it was made from. Or let an --arch factory build the float "
    "network, and save with torch.save(net.state_dict(), ...) the weights taken back: "
    "weight.dequantize(), or (q - zero_point) * scale."
)
_KINDS = (
    ("torch.ao's quantised modules", re.compile(r"(.*\.)?_packed_params(\..*)?")),
    ("GPTQ or AWQ", re.compile(r"(.*\.)?(qweight|qzeros)")),
    ("bitsandbytes", re.compile(r"(.*\.)?(SCB|weight_format|absmax|quant_map|quant_state\..*)")),
)
_INTEGERS = ("int8", "uint8", "int16", "int32", "float8")
_WEIGHT = re.compile(r"(.*[._])?(weight|w|kernel)(_q|_int8|_quantized|_quant)?")


def quantised(dtypes: Mapping[str, str], others: Mapping[str, str]) -> str | None:
    """The quantisation of a state dict, or ``None``.

    Args:
        dtypes: of its tensors, by key.
        others: labels of its entries that are not plain tensors, by key.
    """
    keys = [*dtypes, *others]
    for kind, pattern in _KINDS:
        if any(pattern.fullmatch(key) for key in keys):
            return kind
    if any("qtensor" in label for label in others.values()):
        return "torch's quantised tensors"
    names = {key.rpartition(".")[0] for key in keys}
    if any(f"{name}.scale" in dtypes and f"{name}.zero_point" in dtypes for name in names):
        return "torch.ao's quantised modules"
    held = {d for key, d in dtypes.items() if _WEIGHT.fullmatch(key) and d.startswith(_INTEGERS)}
    return f"{', '.join(sorted(held))} numbers" if held else None
