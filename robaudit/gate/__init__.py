"""The gate: a policy of thresholds and a checkpoint -> a verdict that CI obeys.

Accuracies are decided example by example, in random order, as soon as the confidence sequence
leaves no doubt; everything else is measured once and held against its error bar. Passed, failed, or
inconclusive: what was not measured never passes. Reading a policy needs no torch.
"""
