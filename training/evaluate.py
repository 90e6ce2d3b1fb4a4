"""The command ``python -m training.evaluate``: measures model.pkl, prints and writes the figures."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from scoring import ModelRefused, load_model
from training import report
from training.baselines import predict_all
from training.evaluation import evaluate
from training.generator import DEFAULT_SEED, LabelledAd, generate, with_label_noise
from training.labelled_csv import BadCsv, read_labelled_csv
from training.metrics import figures
from training.people import GENERATED_WEIGHT, MEASURE, ads_by_people
from training.reliability import reliability_svg
from training.text_model import DEFAULT_ADS

_HERE = Path(__file__).parent
TEST_ADS = 6_000
TEST_SEED = 7


def main(argv: list[str] | None = None) -> int:
    """Evaluate as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=main.__doc__)
    parser.add_argument("--model", default="model.pkl", help="the model to measure")
    parser.add_argument(
        "--out", default=str(_HERE), help="folder for the reports, evaluation.json and reliability.svg"
    )
    parser.add_argument("--data", help="measure on this CSV file of labelled ads instead, and write nothing")
    arguments = parser.parse_args(argv)
    try:
        model = load_model(arguments.model)
        if arguments.data:
            print(json.dumps(evaluate(model, read_labelled_csv(arguments.data)), indent=2))
            return 0
        sets = {
            "Measure: ads of an author set aside": read_labelled_csv(MEASURE),
            "Generated ads: templates and slot values that training has not seen": generate(
                TEST_ADS, TEST_SEED, "test"
            ),
        }
    except (ModelRefused, BadCsv) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured = {heading: evaluate(model, ads) for heading, ads in sets.items()}
    baselines = _baselines(list(sets.values()))
    for one, figures_of_others in zip(measured.values(), baselines, strict=True):
        one["baselines"] = figures_of_others
    text = report.markdown(measured, model.version)
    print(text)
    out = Path(arguments.out)
    (out / "EVALUATION.md").write_text(text, encoding="utf-8")
    (out / "EVALUATION.ru.md").write_text(report.in_russian(text), encoding="utf-8")
    whole = {"version": model.version, "sets": measured}
    (out / "evaluation.json").write_text(
        json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    bins = next(iter(measured.values()))["reliability"]
    (out / "reliability.svg").write_text(reliability_svg(bins), encoding="utf-8")
    return 0


def _baselines(sets: list[list[LabelledAd]]) -> list[dict[str, dict[str, Any]]]:
    """Fit each baseline on the model's training ads; return its figures for each set."""
    generated = with_label_noise(generate(DEFAULT_ADS, DEFAULT_SEED), DEFAULT_SEED)
    people, weights = ads_by_people()
    weights = [GENERATED_WEIGHT] * len(generated) + weights
    predicted = predict_all([*generated, *people], weights, [labelled.ad for ads in sets for labelled in ads])
    result = []
    start = 0
    for ads in sets:
        violates = [bool(labelled.rule) for labelled in ads]
        result.append({name: figures(violates, p[start : start + len(ads)]) for name, p in predicted.items()})
        start += len(ads)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
