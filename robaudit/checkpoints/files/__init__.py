"""From a file's bytes to named tensors, running nothing: one module a container, and the judging.

:mod:`.container` finds out what a file is and lists its state dicts (:mod:`.members`), through
:mod:`.archives`, :mod:`.legacy`, :mod:`.torchscript`, :mod:`.exported`, :mod:`.safetensors_header`
or :mod:`.hf_folder`. Pickles are followed by :mod:`.machine`, which describes objects
(:mod:`.values`, :mod:`.calls`) and never makes one, and judged by :mod:`.severity`. All of that is
torch-free. :mod:`.reading` then has :mod:`.materialise` build the tensors of the chosen state dict.
The one exception is :mod:`.trusted`, which runs a pickle that the user named by its hash.
"""
