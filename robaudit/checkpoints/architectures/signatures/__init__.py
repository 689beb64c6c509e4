"""How each family is told by a few of its keys and shapes; torch-free, so that a file can be judged
without importing it.

A signature reads the factory's arguments off a state dict's shapes: a list with one set of them for
each network of the family that the shapes allow, empty when the keys are not its family's. It looks
at tell-tale keys alone; :meth:`Candidate.fits` checks a guess against every key and shape.
"""
