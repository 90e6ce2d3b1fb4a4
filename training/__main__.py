"""The command ``python -m training``: fits a model and writes it with its manifest."""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from threadpoolctl import threadpool_limits

from scoring.classifier import Mixture
from scoring.evidence_columns import EVIDENCE
from scoring.fingerprint import features_sha256
from scoring.four_features import FOUR_FEATURES
from scoring.loading import manifest_path
from scoring.rules import RULES
from training import four_features, text_model
from training.artifact import try_writing, write_model
from training.generator import DEFAULT_SEED, FALSE_LABELS, MISSED_LABELS, generate, with_label_noise
from training.labelled_csv import BadCsv, read_labelled_csv
from training.people import GENERATED_WEIGHT, ads_by_people
from training.thresholds import manifest_thresholds

DATA_WEIGHT = 3.0  # what an ad of the user's own counts, as do the longest of the ads by people
_ENOUGH_TO_CALIBRATE = 200
_LEAST_ADS = 100  # of fewer, all may be of one kind, from which nothing can be learned


def main(argv: list[str] | None = None) -> int:
    """Train as the arguments say; return the exit code, 2 for input that cannot be learned from."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        try_writing(arguments.out)
    except OSError as error:
        parser.error(f"--out {arguments.out} cannot be written: {error.strerror}")
    if manifest_path(arguments.out) == Path(arguments.out):
        parser.error(f"--out {arguments.out} is where the manifest goes: name a .pkl file")
    if arguments.features == "four" and (arguments.data or arguments.only_data):
        parser.error("the model of four features does not learn from --data")
    if arguments.ads is not None and arguments.ads < _LEAST_ADS:
        parser.error(f"--ads {arguments.ads} is too few: at least {_LEAST_ADS}")
    started = time.perf_counter()
    train = _train_four if arguments.features == "four" else _train_text
    try:
        with threadpool_limits(1):  # more threads make these small sums slower, and their order another
            manifest = train(arguments)
    except BadCsv as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    print(
        f"{arguments.out}: {manifest['version']}, {manifest['bytes']} bytes, "
        f"trained on {manifest['trained_on_ads']} ads in {seconds:.0f} s"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Fit a model; write model.pkl and model.json."
    )
    parser.add_argument(
        "--features", choices=["text", "four"], default="text", help="the model that reads, or the first one"
    )
    parser.add_argument(
        "--out", default="model.pkl", help="where the model goes; its manifest goes next to it"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the generator")
    parser.add_argument("--ads", type=int, help=f"how many ads to generate, {_LEAST_ADS} or more")
    parser.add_argument("--data", help="a CSV file of labelled ads to learn from as well")
    parser.add_argument(
        "--only-data", action="store_true", help="learn from --data alone, without generated ads"
    )
    parser.add_argument(
        "--no-people", action="store_true", help="leave out the ads that people wrote (training/people.py)"
    )
    return parser


def _train_four(arguments: argparse.Namespace) -> dict[str, object]:
    count = arguments.ads or four_features.DEFAULT_ADS
    ads, labels = four_features.generate(count, arguments.seed)
    return write_model(
        four_features.fit(ads, labels),
        arguments.out,
        name="four-features-1",
        manifest={
            "threshold": 0.5,
            "features": list(FOUR_FEATURES),
            "seed": arguments.seed,
            "trained_on_ads": len(ads),
        },
    )


def _train_text(arguments: argparse.Namespace) -> dict[str, object]:
    if arguments.only_data and not arguments.data:
        raise BadCsv("--only-data needs --data")
    data = read_labelled_csv(arguments.data) if arguments.data else []
    count = 0 if arguments.only_data else arguments.ads or text_model.DEFAULT_ADS
    generated = with_label_noise(generate(count, arguments.seed), arguments.seed)
    no_people = arguments.only_data or arguments.no_people
    people, people_weights = ([], []) if no_people else ads_by_people()
    # The ads that are most like those of the site calibrate: the user's own, else those of whole length.
    if len(data) >= _ENOUGH_TO_CALIBRATE:
        calibrate_on = [False] * (len(generated) + len(people)) + [True] * len(data)
    else:
        whole = [weight > 1 for weight in people_weights]
        calibrate_on = [not people] * len(generated) + whole + [True] * len(data)
    fitted = text_model.fit_text_model(
        [*generated, *people, *data],
        weights=[GENERATED_WEIGHT] * len(generated) + people_weights + [DATA_WEIGHT] * len(data),
        calibrate_on=calibrate_on,
    )
    pipeline = fitted.pipeline
    return write_model(
        pipeline,
        arguments.out,
        name="text-2",
        manifest={
            "threshold": 0.5,
            "thresholds": manifest_thresholds(),
            "rules": list(RULES),
            "features_sha256": features_sha256(),
            "features": {"evidence": len(EVIDENCE), "columns": len(pipeline[0].feature_names())},
            "calibration": {
                **asdict(pipeline[-1].mixture or Mixture()),
                "ads": sum(calibrate_on),
                "violation_share": fitted.violation_share,
                "held_out_roc_auc": fitted.held_out_roc_auc,
            },
            "seed": arguments.seed,
            "trained_on_ads": len(generated) + len(people) + len(data),
            "by_people": len(people),
            "label_noise": {"missed": MISSED_LABELS, "false": FALSE_LABELS},
            "data": {"ads": len(data), "weight": DATA_WEIGHT} if data else None,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
