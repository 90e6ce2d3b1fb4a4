"""The ads that people wrote, and the variants that training adds."""

from dataclasses import replace

from scoring import Ad
from scoring.rules import TOPICAL_RULE
from scoring.topics import are_neighbours
from training.generator import LabelledAd
from training.labelled_csv import read_labelled_csv
from training.people import FILES, FOLDER, MEASURE, SHORT_CHARACTERS, ads_by_people, with_variants

ADS, WEIGHTS = ads_by_people()
SHORT = LabelledAd(Ad(1, 1, True, "Диван", "Мягкий", category=5, images_qty=1), "", language="ru", author="a")


def test_no_training_ad_is_one_of_the_measure() -> None:
    assert MEASURE not in {FOLDER / name for name in FILES}
    texts = {labelled.ad.description for labelled in ADS}
    assert not [labelled for labelled in read_labelled_csv(MEASURE) if labelled.ad.description in texts]


def test_a_fifth_of_the_authors_ads_are_set_aside() -> None:
    by_authors = sum(labelled.author.startswith("author_") for labelled in ADS)
    set_aside = len(read_labelled_csv(MEASURE))
    assert 0.2 <= set_aside / (by_authors + set_aside) <= 0.25


def test_short_ads_by_people_get_longer_copies_and_keep_their_own_words() -> None:
    copies = [ad for ad in with_variants([SHORT], [1.0])[0] if ad is not SHORT and not ad.rule]
    assert len(copies) == 2
    for copy in copies:
        assert "Мягкий" in copy.ad.description
        assert len(copy.ad.name + copy.ad.description) >= SHORT_CHARACTERS
        assert (copy.ad.category, copy.rule) == (5, "")


def test_an_honest_ad_also_becomes_one_of_a_wrong_category() -> None:
    [misplaced] = [ad for ad in with_variants([SHORT], [1.0])[0] if ad.rule]
    assert misplaced.rule == TOPICAL_RULE
    assert misplaced.ad.description == "Мягкий"
    assert not are_neighbours(5, misplaced.ad.category)


def test_generated_ads_have_no_variants() -> None:
    assert with_variants([replace(SHORT, author="")], [1.0])[0] == [replace(SHORT, author="")]


def test_variants_are_the_same_every_time_and_weigh_less_than_their_ads() -> None:
    ads, weights = with_variants(ADS[-50:], WEIGHTS[-50:])
    assert (ads, weights) == with_variants(ADS[-50:], WEIGHTS[-50:])
    assert max(weights[50:]) < min(weights[:50])
