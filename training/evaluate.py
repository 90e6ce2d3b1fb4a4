"""``python -m training.evaluate``: measure model.pkl, print the figures and write them next to this file."""

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
        "--out", default=str(_HERE), help="folder for EVALUATION.md, evaluation.json, reliability.svg"
    )
    parser.add_argument("--data", help="measure on this CSV file of labelled ads instead, and write nothing")
    arguments = parser.parse_args(argv)
    try:
        model = load_model(arguments.model)
        if arguments.data:
            print(json.dumps(evaluate(model, read_labelled_csv(arguments.data)), indent=2))
            return 0
        sets = {
            "Test set: templates and slot values that training has not seen": generate(
                TEST_ADS, TEST_SEED, "test"
            ),
            "Hand-written ads that the work was steered by (challenge.csv)": read_labelled_csv(
                _HERE / "challenge.csv"
            ),
            "Hand-written ads held out to the end (challenge_held_out.csv)": read_labelled_csv(
                _HERE / "challenge_held_out.csv"
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
    whole = {"version": model.version, "sets": measured}
    (out / "evaluation.json").write_text(
        json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    bins = next(iter(measured.values()))["reliability"]
    (out / "reliability.svg").write_text(reliability_svg(bins), encoding="utf-8")
    return 0


def _baselines(sets: list[list[LabelledAd]]) -> list[dict[str, dict[str, Any]]]:
    """Fit each baseline on the model's training ads; return its figures for each set."""
    train = with_label_noise(generate(DEFAULT_ADS, DEFAULT_SEED), DEFAULT_SEED)
    predicted = predict_all(train, [labelled.ad for ads in sets for labelled in ads])
    result = []
    start = 0
    for ads in sets:
        violates = [bool(labelled.rule) for labelled in ads]
        result.append({name: figures(violates, p[start : start + len(ads)]) for name, p in predicted.items()})
        start += len(ads)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
