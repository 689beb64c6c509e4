"""Certified lower bounds of a classifier's margins in a ball around an image.

A network is read as a graph of affine operators, ReLUs and tanhs
(:func:`robaudit.certified.graph.graph_of`); bounds are propagated through that graph.
"""
