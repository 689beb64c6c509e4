"""Many checkpoints, audited in one resumable run.

:mod:`.manifest` reads which models, data and threat models are asked for, and :mod:`.listing`
lists the jobs; a job that is listed several times is audited once. :mod:`.directory` is the run: a
journal and a folder for each job. :mod:`.driving` hands the jobs to an executor, :mod:`.local` or
:mod:`.on_ray`, which runs :mod:`.work` on each. :mod:`.view`, :mod:`.leaderboard` and
:mod:`.study` read a run, finished or not; they need no torch.
"""
