"""``python -m training``: fit a model and write it with its manifest."""

import argparse

from scoring.four_features import FOUR_FEATURES
from training import four_features
from training.artifact import write_model


def main(argv: list[str] | None = None) -> int:
    """Train as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Fit a model; write model.pkl and model.json."
    )
    parser.add_argument("--features", choices=["four"], default="four", help="which model to fit")
    parser.add_argument(
        "--out", default="model.pkl", help="where the model goes; its manifest goes next to it"
    )
    parser.add_argument("--seed", type=int, default=20240501, help="seed of the generator")
    parser.add_argument("--ads", type=int, default=four_features.DEFAULT_ADS, help="how many ads to generate")
    arguments = parser.parse_args(argv)
    ads, labels = four_features.generate(arguments.ads, arguments.seed)
    manifest = write_model(
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
    print(f"{arguments.out}: {manifest['version']}, {manifest['bytes']} bytes, trained on {len(ads)} ads")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
