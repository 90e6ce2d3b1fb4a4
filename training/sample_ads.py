"""The ads that a first run shows: Russian and English, honest and not, the same for the same seed."""

import random
from dataclasses import replace

from scoring.ad import Ad
from training.generator import generate


def sample_ads(n: int, seed: int) -> list[Ad]:
    """Make ``n`` ads with ids 1..n; all ads of one seller agree on whether the seller is verified."""
    rng = random.Random(f"sellers:{seed}")
    sellers = max(1, n // 3)
    verified = [rng.random() < 0.5 for _ in range(sellers)]
    ads = []
    for ad in (labelled.ad for labelled in generate(n, seed, "test")):  # not what the model learned from
        seller_id = rng.randint(1, sellers)
        ads.append(
            replace(
                ad,
                description=ad.description or ad.name,
                seller_id=seller_id,
                is_verified_seller=verified[seller_id - 1],
            )
        )
    return ads
