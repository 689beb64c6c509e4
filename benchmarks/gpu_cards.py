"""What cards can do at most, from NVIDIA's data sheets.

Data sheets count a multiplication and an addition as one operation each, and so does
``gpu_bench.counted``: a ResNet-18 on 32 x 32 pixels takes 1.11 G multiply-adds forward and as many
back to the image, 4.44 GFLOP in all, so that 132 780 images/s are 590 TFLOP/s, 60 % of an H100's
989.5. (That speed was first called 36 %, which fits a multiply-add as one operation and 800
TFLOP/s, NVIDIA's early figure of the PCIe card.) The least share that is good, 35 %, is in the data
sheets' counting here.
"""

from __future__ import annotations

import re

# TFLOP/s of matrices without sparsity in bf16 and TF32, where data sheets that give them with
# sparsity are halved, and in fp32 outside of tensor cores; by the words of a device's name.
PEAKS = {
    "H200": (989.5, 494.5, 67.0),  # NVIDIA H200 Tensor Core GPU datasheet, SXM
    "H100": (989.5, 494.5, 67.0),  # NVIDIA H100 Tensor Core GPU datasheet, SXM
    "H100 NVL": (835.5, 417.5, 60.0),  # the same, NVL
    "H100 PCIe": (756.5, 378.0, 51.0),  # its edition with the PCIe card
    "A100": (312.0, 156.0, 19.5),  # NVIDIA A100 Tensor Core GPU datasheet
    "L40S": (362.05, 183.0, 91.6),  # NVIDIA L40S datasheet
    "L4": (121.0, 60.0, 30.3),  # NVIDIA L4 Tensor Core GPU datasheet
    "A10": (125.0, 62.5, 31.2),  # NVIDIA A10 Tensor Core GPU datasheet
}


def peak_of(name: str) -> tuple[str, tuple[float, float, float]] | None:
    """The entry of :data:`PEAKS` whose words are in a device's name; the longest of several."""
    found = [words for words in PEAKS if re.search(rf"\b{words}\b", name)]
    return (best, PEAKS[best]) if (best := max(found, key=len, default=None)) else None
