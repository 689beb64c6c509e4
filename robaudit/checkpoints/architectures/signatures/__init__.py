"""How each family is recognised by a few of its keys and shapes, without torch.

A signature reads the factory's arguments from a state dict's shapes: a list with one set of them
for each network of the family that the shapes allow, empty if the keys are of another family. It
reads a few characteristic keys; :meth:`Candidate.fits` checks a guess against every key and shape.
"""
