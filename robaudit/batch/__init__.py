"""Many checkpoints, audited in one resumable run.

A manifest names models, data and threat models; :mod:`.listing` makes rows of it, and jobs, which
are audited once however often they are listed. :mod:`.directory` is the run: one folder a job and a
journal. :mod:`.driving` hands jobs to an executor (:mod:`.inline`, :mod:`.local`,
:mod:`.on_ray`), which :mod:`.work` does. :mod:`.leaderboard` and :mod:`.study` read a run, also
one that still goes on; they need no torch.
"""
