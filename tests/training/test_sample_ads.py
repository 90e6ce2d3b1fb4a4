"""The sample ads of a first run."""

from training.sample_ads import sample_ads


def test_sample_ads_are_the_same_for_the_same_seed() -> None:
    assert sample_ads(50, seed=3) == sample_ads(50, seed=3) != sample_ads(50, seed=4)


def test_sample_ads_are_numbered_from_one_and_fit_the_database() -> None:
    ads = sample_ads(300, seed=1)
    assert [ad.item_id for ad in ads] == list(range(1, 301))
    assert all(0 <= ad.category <= 100 and ad.images_qty >= 0 and ad.name and ad.description for ad in ads)


def test_sample_ads_come_in_both_languages() -> None:
    texts = [ad.description for ad in sample_ads(300, seed=1)]
    cyrillic = sum(any("а" <= letter <= "я" for letter in text.lower()) for text in texts)
    assert 50 < cyrillic < 250


def test_all_ads_of_one_seller_agree_on_whether_the_seller_is_verified() -> None:
    verified: dict[int, set[bool]] = {}
    for ad in sample_ads(300, seed=1):
        verified.setdefault(ad.seller_id, set()).add(ad.is_verified_seller)
    assert all(len(answers) == 1 for answers in verified.values())
