"""``(model, x, y) -> curvature of the loss in the weights``; one quantity a file.

Inputs are held fixed; parameters are never changed. Traces are exact where the network allows it,
and every estimate says which quantity it is and how sure it is.
"""

from robaudit.curvature.second_opinion import PyHessian, pyhessian
from robaudit.curvature.spectrum import Density, Spectrum, spectrum
from robaudit.curvature.traces import LayerTrace, LayerTraces, layer_traces
from robaudit.curvature.wci import LayerContribution, WeightCurvature, wci

__all__ = [
    "Density",
    "LayerContribution",
    "LayerTrace",
    "LayerTraces",
    "PyHessian",
    "Spectrum",
    "WeightCurvature",
    "layer_traces",
    "pyhessian",
    "spectrum",
    "wci",
]
