"""Generated ads: seeded, in both languages, of every rule, with near misses and disguises."""

from collections import Counter

import pytest

from scoring.rules import RULES
from training.generator import FALSE_LABELS, MISSED_LABELS, generate, with_label_noise

ADS = generate(3_000, seed=11)


def test_the_same_seed_gives_the_same_ads_and_another_gives_others() -> None:
    assert generate(100, seed=3) == generate(100, seed=3) != generate(100, seed=4)


def test_more_ads_of_a_seed_begin_with_the_same_ones() -> None:
    assert generate(150, seed=3)[:100] == generate(100, seed=3)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("language", ["ru", "en"])
def test_every_rule_has_violations_and_near_misses_in_each_language(split: str, language: str) -> None:
    ads = [labelled for labelled in generate(2_000, seed=2, split=split) if labelled.language == language]
    assert {labelled.rule for labelled in ads if labelled.rule} == set(RULES)
    assert {labelled.near_miss_of for labelled in ads if labelled.near_miss_of} == set(RULES)


def test_an_ad_breaks_a_rule_or_nearly_does_never_both() -> None:
    assert not [labelled for labelled in ADS if labelled.rule and labelled.near_miss_of]


def test_violations_come_in_every_strength_of_disguise() -> None:
    strengths = Counter(labelled.strength for labelled in ADS if labelled.rule)
    assert min(strengths[strength] for strength in (0, 1, 2, 3)) > 30


def test_ads_fit_the_database() -> None:
    for labelled in ADS:
        ad = labelled.ad
        assert 0 <= ad.category <= 100
        assert ad.images_qty >= 0
        assert ad.name
        assert "{" not in ad.name + ad.description


def test_about_as_many_labels_are_wrong_as_the_model_card_says() -> None:
    noisy = with_label_noise(ADS, seed=1)
    missed = [bool(a.rule) and not b.rule for a, b in zip(ADS, noisy, strict=True)]
    false = [not a.rule and bool(b.rule) for a, b in zip(ADS, noisy, strict=True)]
    violations = sum(bool(labelled.rule) for labelled in ADS)
    assert sum(missed) / violations == pytest.approx(MISSED_LABELS, abs=0.012)
    assert sum(false) / (len(ADS) - violations) == pytest.approx(FALSE_LABELS, abs=0.006)
