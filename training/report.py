"""Puts the figures of an evaluation into words and a picture: EVALUATION.md and reliability.svg."""

from collections.abc import Mapping, Sequence
from typing import Any

TARGETS = {"roc_auc": 0.97, "recall_at_99_precision": 0.85, "brier": 0.05}
EACH_AUC = 0.93

_HEAD = (
    "| | ads | ROC AUC | average precision | precision at 95 % recall | recall at 99 % precision | Brier |\n"
    "|---|---|---|---|---|---|---|"
)


def markdown(sets: Mapping[str, dict[str, Any]], version: str) -> str:
    """Write the whole report; ``sets`` maps a heading to figures, the first of them is the test set."""
    test = next(iter(sets.values()))
    lines = [
        "# Evaluation",
        "",
        f"Of `{version}`, by `python -m training.evaluate`. What the sets are and what such figures are",
        "worth is said in `MODEL_CARD.md`.",
        "",
        "## Targets, on the test set",
        "",
        "| target | reached | |",
        "|---|---|---|",
        *_targets(test),
        "",
    ]
    for heading, figures in sets.items():
        lines += ["", f"## {heading}", "", _HEAD, _row("**this model**", figures["overall"])]
        lines += [_row(f"in {language}", values) for language, values in figures["per_language"].items()]
        lines += [_row(f"baseline: {name}", values) for name, values in figures["baselines"].items()]
        lines += [
            "",
            *_rules(figures["per_rule"]),
            "",
            *_disguises(figures["per_disguise"]),
            *_decisions(figures["decisions"]),
        ]
    lines += [
        "",
        "## Reliability, on the test set",
        "",
        "![reliability](reliability.svg)",
        "",
        *_reliability(test["reliability"]),
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _row(name: str, figures: Mapping[str, Any]) -> str:
    cells = [
        figures.get(key)
        for key in (
            "roc_auc",
            "average_precision",
            "precision_at_95_recall",
            "recall_at_99_precision",
            "brier",
        )
    ]
    return f"| {name} | {figures['ads']} | " + " | ".join(_number(cell) for cell in cells) + " |"


def _targets(test: Mapping[str, Any]) -> list[str]:
    overall = test["overall"]
    rows = [
        ("ROC AUC >= 0.97", overall["roc_auc"], overall["roc_auc"] >= TARGETS["roc_auc"]),
        (
            "recall >= 0.85 at 99 % precision",
            overall["recall_at_99_precision"],
            overall["recall_at_99_precision"] >= TARGETS["recall_at_99_precision"],
        ),
        ("Brier <= 0.05", overall["brier"], overall["brier"] <= TARGETS["brier"]),
    ]
    for kind in ("per_language", "per_rule"):
        rows += [
            (f"{name}: ROC AUC >= 0.93", values["roc_auc"], values["roc_auc"] >= EACH_AUC)
            for name, values in test[kind].items()
            if values["roc_auc"] is not None
        ]
    return [
        f"| {what} | {_number(value)} | {'yes' if reached else '**no**'} |" for what, value, reached in rows
    ]


def _rules(rules: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "| rule | violations | near misses | ROC AUC against honest ads | against its near misses "
        "| found at 0.5 | near misses passed | named right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rule, values in rules.items():
        cells = [
            _number(values[key])
            for key in (
                "roc_auc",
                "roc_auc_against_near_misses",
                "found_at_half",
                "near_misses_passed_at_half",
                "named_right",
            )
        ]
        lines.append(
            f"| {rule} | {values['violations']} | {values['near_misses']} | " + " | ".join(cells) + " |"
        )
    return lines


def _disguises(strengths: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if len(strengths) < 2:
        return []
    lines = ["| strength of disguise | violations | ROC AUC | found at 0.5 |", "|---|---|---|---|"]
    lines += [
        f"| {strength} | {values['violations']} | "
        f"{_number(values['roc_auc'])} | {_number(values['found_at_half'])} |"
        for strength, values in strengths.items()
    ]
    return [*lines, ""]


def _decisions(counts: Mapping[str, int]) -> list[str]:
    lines = ["| | approve | review | reject |", "|---|---|---|---|"]
    lines += [
        f"| {kind} | {counts[f'{kind} approve']} | {counts[f'{kind} review']} | {counts[f'{kind} reject']} |"
        for kind in ("violation", "honest")
    ]
    return lines


def _reliability(bins: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| probability from | ads | mean probability | share of violations |", "|---|---|---|---|"]
    lines += [
        f"| {item['from']:.1f} | {item['ads']} | "
        f"{item['mean_probability']:.3f} | {item['share_of_violations']:.3f} |"
        for item in bins
    ]
    return lines
