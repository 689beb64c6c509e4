"""A gate's verdicts built by hand: one rule of each outcome and severity."""

from robaudit.schema import (
    Data,
    Decision,
    Interval,
    Provenance,
    Subject,
    Suite,
    Threat,
    Verdict,
)

HEAD = '[gate]\ndata = "digits"\npreset = "quick"\n'
FAST = '[gate.metrics."accuracy.fast"]\nmin = 0.4\n'
HOSTILE = "<script>alert(1)</script>]]>\x1b[31m|`x`\n@all ![a](https://b.example)\x00\ufffe{0}"


def decision(outcome="pass", **update) -> Decision:
    values = {
        "metric": "accuracy.autoattack",
        "suite": "digits",
        "rule": "min",
        "threshold": 0.4,
        "outcome": outcome,
        "sentence": f"63 of 70 examples looked at withstood; so it is {outcome}.",
        "alpha": 0.05,
        "value": 0.9,
        "interval": Interval(low=0.71, high=0.96, level=0.9, method="prior-posterior-ratio"),
        "examples": 70,
        "population": 600,
        "line": 7,
        "seconds": 1.25,
    }
    return Decision(**(values | update))


def every_kind() -> list[Decision]:
    return [
        decision(),
        decision("fail", metric="accuracy.clean", threshold=0.99, line=9),
        decision(
            "inconclusive",
            metric="wci",
            rule="max",
            threshold=70,
            value=None,
            interval=None,
            examples=None,
            reason="out of memory",
            line=11,
        ),
        decision("fail", metric="accuracy.pgd", rule="max_drop", threshold=0.02, baseline=0.93,
                 severity="warning", line=13),
        decision("inconclusive", metric="loss.robust", rule="max", severity="warning", line=None),
    ]  # fmt: skip


def verdict(source="runs/at.pt", decisions=None, **update) -> Verdict:
    values = {
        "robaudit": "0.1.0",
        "subject": Subject(
            source=source,
            sha256="9f2c" * 16,
            format="state dict",
            architecture="digits_resnet",
            identified_by="names and shapes",
            normalization="none",
            parameters=77_000,
        ),
        "policy": "ci/robaudit policy.toml",
        "policy_sha256": "ab12" * 16,
        "suites": [
            Suite(
                name="digits",
                data=Data(name="digits", split="test", n=600, sha256="cd" * 32, classes=10),
                threat=Threat(norm="linf", eps=0.15),
            )
        ],
        "decisions": every_kind() if decisions is None else decisions,
        "provenance": Provenance(
            argv=["robaudit", "gate", source],
            seed=0,
            started="2025-11-20T23:12:04Z",
            seconds=1234.5678,
            versions={"torch": "2.9.1"},
            device="cpu",
            precision="fp32",
            batch_size=256,
        ),
    }
    return Verdict(**(values | update))


def hostile() -> Verdict:
    """Foreign text in every place that a checkpoint, a data set or a policy can reach."""
    plain = verdict(HOSTILE, warnings=[HOSTILE], policy=f"{HOSTILE}.toml")
    subject = plain.subject.model_copy(
        update=dict.fromkeys(("sha256", "architecture", "normalization", "format"), HOSTILE)
    )
    suite = plain.suites[0]
    data = suite.data.model_copy(update={"name": HOSTILE, "sha256": HOSTILE})
    texts = dict.fromkeys(("metric", "suite", "sentence", "reason"), HOSTILE)
    return plain.model_copy(
        update={
            "subject": subject,
            "suites": [suite.model_copy(update={"name": HOSTILE, "data": data})],
            "decisions": [one.model_copy(update=texts) for one in plain.decisions],
        }
    )
