"""Short names of audited checkpoints, with a mark where the network was guessed."""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.report.text import model_name, model_names
from robaudit.schema import Report, Subject

ASSUMED = "assumed"
SUBJECT = (
    *("subject", "sha256", "architecture", "architecture_known"),
    *("normalization", "normalization_known"),
)
"""The columns of a CSV file that say which network was audited."""


def subject_cells(report: Report) -> dict[str, object]:
    """The cells of :data:`SUBJECT`, and ``data``, ``norm`` and ``eps``."""
    subject, threat = report.subject, report.threat
    return {
        "subject": subject.source,
        **{name: getattr(subject, name) for name in SUBJECT[1:]},
        "data": report.data.name,
        **({} if threat is None else {"norm": threat.norm, "eps": threat.eps}),
    }


def name_of(subject: Subject) -> str:
    """The short name of the checkpoint, marked where its network was guessed."""
    return marked(model_name(subject.source), subject.assumed)


def names_of(subjects: Sequence[Subject | str]) -> list[str]:
    """:func:`name_of` of each, no two alike.

    Args:
        subjects: a string is the source of a checkpoint that was not audited.
    """
    sources = [one if isinstance(one, str) else one.source for one in subjects]
    return [
        marked(name, not isinstance(one, str) and one.assumed)
        for name, one in zip(model_names(sources), subjects, strict=True)
    ]


def marked(name: str, assumed: bool) -> str:
    """The name, with the mark of a guess.

    >>> marked("epoch_3", True)
    'epoch_3 (assumed)'
    """
    return f"{name} ({ASSUMED})" if assumed else name
