"""From a file's bytes to named tensors, without running the file.

:mod:`.container` recognises the format and lists the state dicts (:mod:`.members`), through
:mod:`.torch_files`, :mod:`.torchscript`, :mod:`.exported`, :mod:`.safetensors_header`
or :mod:`.hf_folder`. Pickles are followed by :mod:`.machine`, which describes objects
(:mod:`.values`, :mod:`.calls`) and never makes one, and judged by :mod:`.severity`. All of that is
torch-free. :mod:`.reading` then has :mod:`.materialise` build the tensors of the chosen state dict.
The only exception is :mod:`.trusted`, which unpickles a file whose hash the user gave.
"""
