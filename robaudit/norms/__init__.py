"""Norms of a network's weights, which need no examples: path norm, product of spectral norms.

Weights are the effective ones, batch norms in evaluation mode are folded into the layer before
them, and everything is computed in float64.
"""

from robaudit.norms.path_norm import PathNorm, path_norm
from robaudit.norms.spectral import SpectralNorms, spectral_norms

__all__ = ["PathNorm", "SpectralNorms", "path_norm", "spectral_norms"]
