"""Curvature of the loss in the weights: ``(model, x, y) -> quantity``, one quantity per file.

Inputs are held fixed and parameters are not changed. Traces are exact where the network allows it;
every estimate has a standard error and names the matrix it belongs to.
"""

from robaudit.curvature.density import Density
from robaudit.curvature.fisher_rao import FisherRao, fisher_rao
from robaudit.curvature.gram import gram_bytes, gram_spectrum, small_spectrum
from robaudit.curvature.largest import Largest, largest_eigenvalue
from robaudit.curvature.layer_spread import LayerSpread, layer_spreads
from robaudit.curvature.pacbayes import PacBayes, bound_terms, check_constants, pac_bayes
from robaudit.curvature.pyhessian_reference import PyHessian, pyhessian
from robaudit.curvature.relative_flatness import RelativeFlatness, relative_flatness
from robaudit.curvature.spectrum import Spectrum, spectrum
from robaudit.curvature.top_layer import TopLayerTrace, top_layer_trh
from robaudit.curvature.traces import LayerTrace, LayerTraces, layer_traces
from robaudit.curvature.wci import LayerContribution, WeightCurvature, wci

__all__ = [
    "Density",
    "FisherRao",
    "Largest",
    "LayerContribution",
    "LayerSpread",
    "LayerTrace",
    "LayerTraces",
    "PacBayes",
    "PyHessian",
    "RelativeFlatness",
    "Spectrum",
    "TopLayerTrace",
    "WeightCurvature",
    "bound_terms",
    "check_constants",
    "fisher_rao",
    "gram_bytes",
    "gram_spectrum",
    "largest_eigenvalue",
    "layer_spreads",
    "layer_traces",
    "pac_bayes",
    "pyhessian",
    "relative_flatness",
    "small_spectrum",
    "spectrum",
    "top_layer_trh",
    "wci",
]
