"""Writes the texts of an evaluation: EVALUATION.md, and the same in Russian."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation import LENGTHS

GOALS = {"roc_auc": 0.95, "recall_at_95_precision": 0.8}  # on the measure
GENERATED_GOALS = {"roc_auc": 0.97, "recall_at_99_precision": 0.65, "brier": 0.07}  # guard against losses
EACH_AUC = 0.93  # of each rule and language, on generated ads

_KEYS = ("roc_auc", "recall_at_95_precision", "recall_at_90_precision", "accuracy_at_half", "brier")
_HEAD = (
    "| | ads | ROC AUC | recall at 95 % precision | recall at 90 % precision | right at 0.5 | Brier |\n"
    "|---|---|---|---|---|---|---|"
)
_NAMES = {
    "roc_auc": "ROC AUC",
    "recall_at_95_precision": "recall at 95 % precision",
    "recall_at_99_precision": "recall at 99 % precision",
    "brier": "Brier",
}


def markdown(sets: Mapping[str, dict[str, Any]], version: str) -> str:
    """Write the whole report; ``sets`` maps headings to figures: the measure, then the generated ads."""
    measure, generated = sets.values()
    lines = [
        "# Evaluation",
        "",
        f"Of `{version}`, by `python -m training.evaluate`. `MODEL_CARD.md` describes the sets and the worth",
        "of such figures. In brackets: the 95 % interval of a bootstrap over the ads.",
        "",
        "## Goals",
        "",
        "| set | goal | reached | |",
        "|---|---|---|---|",
        *_goals("measure", measure["overall"], GOALS),
        *_goals("generated", generated["overall"], GENERATED_GOALS),
        *_each_auc(generated),
    ]
    for heading, figures in sets.items():
        lines += [
            "",
            f"## {heading}",
            "",
            _HEAD,
            _row("**this model**", figures["overall"], figures["intervals"]),
            *(_row(f"in {language}", values) for language, values in figures["per_language"].items()),
            *(_row(_length(least), values) for least, values in figures["per_length"].items()),
            *(_row(f"{kind} spelling", values) for kind, values in figures["per_spelling"].items()),
            *(_row(f"baseline: {name}", values) for name, values in figures["baselines"].items()),
            "",
            *_rules(figures["per_rule"]),
            "",
            *_disguises(figures["per_disguise"]),
            *_decisions(figures["decisions"]),
        ]
    lines += ["", "## Reliability, on the measure", "", "![reliability](reliability.svg)", ""]
    return "\n".join([*lines, *_reliability(measure["reliability"])]) + "\n"


def in_russian(text: str) -> str:
    """Return the report with Russian headings and sentences; names and figures stay."""
    for english, russian in sorted(_RUSSIAN.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(english, russian)
    return text


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _length(least: str) -> str:
    place = LENGTHS.index(int(least))
    if place + 1 == len(LENGTHS):
        return f"{least} characters or more"
    return f"{least} to {LENGTHS[place + 1] - 1} characters"


def _row(
    name: str, figures: Mapping[str, Any], intervals: Mapping[str, Sequence[float]] | None = None
) -> str:
    cells = []
    for key in _KEYS:
        cell = _number(figures.get(key))
        if intervals and key in intervals:
            low, high = intervals[key]
            cell += f" ({low:.3f} to {high:.3f})"
        cells.append(cell)
    return f"| {name} | {figures['ads']} | " + " | ".join(cells) + " |"


def _goals(name: str, overall: Mapping[str, Any], goals: Mapping[str, float]) -> list[str]:
    lines = []
    for key, goal in goals.items():
        is_reached = overall[key] <= goal if key == "brier" else overall[key] >= goal
        sign = "<=" if key == "brier" else ">="
        lines.append(_goal(name, f"{_NAMES[key]} {sign} {goal}", overall[key], is_reached))
    return lines


def _each_auc(generated: Mapping[str, Any]) -> list[str]:
    return [
        _goal("generated", f"{name}: ROC AUC >= {EACH_AUC}", values["roc_auc"], values["roc_auc"] >= EACH_AUC)
        for kind in ("per_language", "per_rule")
        for name, values in generated[kind].items()
        if values["roc_auc"] is not None
    ]


def _goal(name: str, goal: str, value: float, is_reached: bool) -> str:
    return f"| {name} | {goal} | {_number(value)} | {'yes' if is_reached else '**no**'} |"


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


_RUSSIAN = {
    "# Evaluation\n": "# Оценка модели\n",
    "Of `": "Модель `",
    ", by `python -m training.evaluate`. `MODEL_CARD.md` describes the sets and the worth\nof such figures. "
    "In brackets: the 95 % interval of a bootstrap over the ads.": ", измерена "
    "`python -m training.evaluate`.\n`MODEL_CARD.ru.md` "
    "описывает наборы и чего стоят такие числа. В скобках: "
    "95-процентный\nинтервал бутстрепа по объявлениям.",
    "## Goals": "## Цели",
    "| set | goal | reached | |": "| набор | цель | достигнуто | |",
    "| measure | ": "| мера | ",
    "| generated | ": "| сгенерированные | ",
    "| yes |": "| да |",
    "| **no** |": "| **нет** |",
    "## Measure: ads of an author set aside": "## Мера: объявления отложенного автора",
    "## Generated ads: templates and slot values that training has not seen": "## Сгенерированные "
    "объявления: шаблоны и слова, которых не было в обучении",
    "| | ads | ROC AUC |": "| | объявлений | ROC AUC |",
    "recall at 95 % precision": "полнота при точности 95 %",
    "recall at 90 % precision": "полнота при точности 90 %",
    "recall at 99 % precision": "полнота при точности 99 %",
    "right at 0.5": "верно при 0,5",
    "Brier": "Брайер",
    "**this model**": "**эта модель**",
    "| in ru |": "| по-русски |",
    "| in en |": "| по-английски |",
    " to ": " до ",
    " characters or more": " знаков и больше",
    " characters |": " знаков |",
    "usual spelling": "обычное написание",
    "odd spelling": "необычное написание",
    "baseline: four features": "для сравнения: четыре признака",
    "baseline: word list": "для сравнения: список слов",
    "baseline: TF-IDF over words and characters": "для сравнения: TF-IDF по словам и буквам",
    "baseline: TF-IDF over words": "для сравнения: TF-IDF по словам",
    "| rule | violations | near misses | ROC AUC against honest ads | against its near misses "
    "| found at 0.5 | near misses passed | named right |": "| правило | нарушений | близких | ROC AUC против "
    "честных | против близких | найдено при 0,5 | близких пропущено | верно названо |",
    "| strength of disguise | violations | ROC AUC | found at 0.5 |": "| сила маскировки | нарушений | "
    "ROC AUC | найдено при 0,5 |",
    "| | approve | review | reject |": "| | публикация | проверка | отказ |",
    "| violation | ": "| нарушение | ",
    "| honest | ": "| честное | ",
    "## Reliability, on the measure": "## Надёжность вероятностей, на мере",
    "| probability from | ads | mean probability | share of violations |": "| вероятность от | объявлений | "
    "средняя вероятность | доля нарушений |",
}
