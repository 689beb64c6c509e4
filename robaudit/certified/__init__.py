"""Certified lower bounds of a classifier's margins in a ball around an image.

A network is read as a graph of affine operators, ReLUs and tanhs (:mod:`.graph`). Bounds of its
values are propagated forward (:mod:`.propagation`), each by substituting linear bounds backward
(:mod:`.backward`); those of the first layer's ReLUs may be bounds in the pixels (:mod:`.hull`).
Slopes and multipliers are searched for in float32 (:mod:`.search`) and evaluated soundly in
float64; what stays open is split (:mod:`.branching`). :func:`.certify.certify` is the front door.
"""

from robaudit.certified.certify import Certificates, certify
from robaudit.certified.radius import certified_radii

__all__ = ["Certificates", "certified_radii", "certify"]
