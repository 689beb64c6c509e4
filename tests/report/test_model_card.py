"""A model card, read by the Hub's own parser."""

import pytest
import yaml

from robaudit.errors import UsageError
from robaudit.report.model_card import model_card


def metadata(card):
    _, block, text = card.split("---\n", 2)
    return yaml.safe_load(block), text


def test_every_accuracy_is_there_with_its_interval(report):
    found, text = metadata(model_card([report]))
    (entry,) = found["model-index"]
    (result,) = entry["results"]
    by = {metric["args"]["measurement"]: metric for metric in result["metrics"]}
    measured = [m for m in report.measurements if m.name.startswith("accuracy.")]
    measured = [m for m in measured if m.split == "test"]  # not those of the training split
    undoubted = [m for m in measured if m.value is not None and not m.doubts]
    assert set(by) == {m.name for m in undoubted}
    assert len(by) > 2
    for m in undoubted:
        assert by[m.name]["value"] == pytest.approx(100 * m.value, abs=0.01)
        low, high = by[m.name]["args"]["interval"]
        assert low == pytest.approx(100 * m.interval.low, abs=0.01)
        assert high == pytest.approx(100 * m.interval.high, abs=0.01)
    assert "## Measurements" in text


def test_the_hub_reads_it(report):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card([report]))
    results = card.data.eval_results
    values = {one.metric_args["measurement"]: one.metric_value for one in results}
    clean = report.get("accuracy.clean")
    assert values["accuracy.clean"] == pytest.approx(100 * clean.value, abs=0.01)
    assert {one.task_type for one in results} == {"image-classification"}
    # and writes it again: nothing is in a place that it does not know
    again = hub.ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


def test_a_doubted_accuracy_is_left_out_and_named(report):
    doubted = [
        m.model_copy(update={"doubts": ["gradients are masked"]}) if m.name == "accuracy.pgd" else m
        for m in report.measurements
    ]
    found, text = metadata(model_card([report.model_copy(update={"measurements": doubted})]))
    names = [
        metric["args"]["measurement"] for metric in found["model-index"][0]["results"][0]["metrics"]
    ]
    assert "accuracy.pgd" not in names
    assert "accuracy.clean" in names
    assert "casts doubt" in text
    assert "PGD-20" in text.partition("#")[0]


def test_names_from_files_break_nothing(report):
    source = 'a: b\n---\n"x" #y'
    strange = report.subject.model_copy(update={"source": source})
    data = report.data.model_copy(update={"name": "- [x]: {y}\n---"})
    card = model_card([report.model_copy(update={"subject": strange, "data": data})])
    found, _ = metadata(card)
    assert found["library_name"] == "pytorch"
    assert "[x]: {y}" in found["model-index"][0]["results"][0]["dataset"]["type"]


def test_two_reports_of_one_checkpoint_are_two_results(report):
    wider = report.threat.model_copy(update={"eps": 2 * report.threat.eps})
    found, _ = metadata(model_card([report, report.model_copy(update={"threat": wider})]))
    assert len(found["model-index"][0]["results"]) == 2


def test_reports_of_two_models_are_refused(report):
    other = report.subject.model_copy(update={"sha256": "f" * 64})
    with pytest.raises(UsageError, match="one model"):
        model_card([report, report.model_copy(update={"subject": other})])
