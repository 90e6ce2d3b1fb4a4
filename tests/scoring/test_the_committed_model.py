"""model.pkl as it is committed: it loads, takes any ad, and says why."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scoring import Ad, Explanation, Model, NotExplainable, load_model
from scoring.rules import RULES

ROOT = Path(__file__).parents[2]
MODEL_PATH = ROOT / "model.pkl"
PLAIN = Ad(1, 1, True, "Диван угловой", "Мягкий, самовывоз. Торг у подъезда", category=5, images_qty=3)
CONTACT = replace(PLAIN, description="Мягкий, самовывоз. Звоните 8 916 000-12-34, Олег. Торг у подъезда")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(MODEL_PATH)


def test_it_takes_less_than_5_megabytes() -> None:
    assert MODEL_PATH.stat().st_size < 5_000_000


@pytest.mark.slow
def test_unpickling_it_takes_nothing_of_training() -> None:
    code = (
        "import sys; from scoring import load_model; load_model('model.pkl'); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'training', 'tasks', 'db', 'api', 'broker'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_telephone_makes_the_difference(model: Model) -> None:
    fine, contact = model.score([PLAIN, CONTACT])
    assert not fine.is_violation
    assert contact.is_violation


@pytest.mark.parametrize(
    ("name", "description", "category", "rule"),
    [
        ("Стартер", "Кат. номер 5702-3708000, аналог 426.3708", 14, ""),
        ("Пистолет для монтажной пены", "Новый, металлический, с тефлоном", 18, ""),
        ("Foam gun", "For expanding foam, hardly used", 18, ""),
        ("Gym membership", "Invite a friend and both get 10 % off the first month", 17, ""),
        ("Side job", "Every friend you invite gives you 10 %, and their friends 3 %", 11, "spam_keywords"),
        ("Подработка", "Каждый приглашённый друг даёт вам 10 %, а его друзья 3 %", 11, "spam_keywords"),
    ],
)
def test_plain_cases_of_the_policy_are_judged_right(
    model: Model, name: str, description: str, category: int, rule: str
) -> None:
    ad = replace(PLAIN, name=name, description=description, category=category)
    assert model.score([ad])[0].is_violation == bool(rule)
    assert model.explain(ad).rule == rule or not rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "🙂🔥🙂",
        "مرحبا، أريكة للبيع",
        "\u202eabc\u202c def",
        "a\x00b\x01\x02",
        "<script>alert(1)</script><b>sofa</b>",
        "&#x41;" * 500,
        "слово " * 17_000,
        "8" * 100_000,
        "a@" * 50_000,
        "пять" * 25_000,
        "\ud800",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_any_text_gets_a_finite_probability(model: Model, text: str) -> None:
    ads = [
        replace(PLAIN, name=text),
        replace(PLAIN, description=text),
        replace(PLAIN, name=text, description=text),
    ]
    assert all(
        0 <= verdict.probability <= 1 and math.isfinite(verdict.probability) for verdict in model.score(ads)
    )


@pytest.mark.parametrize(("category", "images_qty"), [(0, 0), (100, 0), (20, 1_000_000), (5, -1), (-3, 0)])
def test_any_numbers_get_a_finite_probability(model: Model, category: int, images_qty: int) -> None:
    [verdict] = model.score([replace(PLAIN, category=category, images_qty=images_qty)])
    assert math.isfinite(verdict.probability)


def test_an_ad_scores_the_same_alone_and_in_a_batch(model: Model) -> None:
    ads = [PLAIN, CONTACT, replace(PLAIN, description="")] * 5
    alone = [model.score([ad])[0].probability for ad in ads]
    assert [verdict.probability for verdict in model.score(ads)] == pytest.approx(alone, abs=1e-9)


def explained(model: Model, ad: Ad) -> Explanation:
    explanation = model.explain(ad)
    assert explanation.probability == pytest.approx(model.score([ad])[0].probability, abs=1e-9)
    return explanation


def test_an_explanation_names_the_rule_the_words_and_the_features(model: Model) -> None:
    explanation = explained(model, CONTACT)
    assert explanation.rule == "contacts"
    assert set(explanation.rules) <= set(RULES)
    strongest = explanation.parts[0]
    assert "916 000-12-34" in strongest.text
    assert getattr(CONTACT, strongest.field)[strongest.start : strongest.end] == strongest.text
    assert strongest.effect > 0
    effects = {feature.name: feature.effect for feature in explanation.features}
    assert effects["contacts.any"] > 0


OBLIQUE = [
    ("Щенки", "Пока малы, смотреть не зовём. Щенок за вами после пяти тысяч переводом на карту", 9),
    ("Earbuds", "Apple on the lid, made by other hands, you won't tell. Boxed, a fifth of the price", 1),
    ("Комната", "Светлая, с балконом. Сдам девушке славянской внешности, кавказ не беспокоить", 12),
]


def log_odds(model: Model, ad: Ad) -> float:
    [verdict] = model.score([ad])
    return math.log(verdict.probability / (1 - verdict.probability))


@pytest.mark.parametrize(("name", "description", "category"), OBLIQUE)
def test_a_named_part_that_is_taken_out_takes_its_effect_with_it(
    model: Model, name: str, description: str, category: int
) -> None:
    ad = replace(PLAIN, name=name, description=description, category=category)
    parts = explained(model, ad).parts
    assert parts
    assert parts[0].effect > 0.5
    for part in parts:
        text = getattr(ad, part.field)
        rest = f"{text[: part.start]} {text[part.end :]}"
        without = replace(ad, name=rest) if part.field == "name" else replace(ad, description=rest)
        assert log_odds(model, ad) - log_odds(model, without) == pytest.approx(part.effect, abs=1e-6)


@pytest.mark.parametrize(("name", "description", "category"), OBLIQUE)
def test_a_named_word_of_the_second_opinion_that_is_taken_out_lowers_the_score(
    model: Model, name: str, description: str, category: int
) -> None:
    ad = replace(PLAIN, name=name, description=description, category=category)
    words = {
        key.removeprefix("word: "): effect
        for key, effect in model.pipeline[0].opinion_of_words(ad).items()
        if key.startswith("word: ") and key.removeprefix("word: ") in description.lower().split()
    }
    strongest = max(words, key=words.__getitem__)
    rest = " ".join(word for word in description.split() if word.lower() != strongest)
    assert log_odds(model, replace(ad, description=rest)) < log_odds(model, ad)


@pytest.mark.parametrize(("name", "description", "category"), OBLIQUE)
def test_the_second_opinion_is_named_with_words_of_the_ad(
    model: Model, name: str, description: str, category: int
) -> None:
    ad = replace(PLAIN, name=name, description=description, category=category)
    [opinion] = [f for f in explained(model, ad).features if f.name.startswith("second_opinion (")]
    assert opinion.effect > 0
    named = opinion.name.removeprefix("second_opinion (").removesuffix(")").split("; ")
    contributions = model.pipeline[0].opinion_of_words(ad)
    assert named == sorted(contributions, key=lambda word: -contributions[word])[: len(named)]


def test_the_share_of_violations_on_the_site_moves_scores_and_explanations_alike() -> None:
    usual, rare = load_model(MODEL_PATH), load_model(MODEL_PATH, violation_share=0.02)
    explained(rare, CONTACT)
    assert log_odds(rare, CONTACT) < log_odds(usual, CONTACT) - 3
    effects = [part.effect for part in usual.explain(CONTACT).parts]
    assert [part.effect for part in rare.explain(CONTACT).parts] == pytest.approx(effects, abs=1e-6)


@pytest.mark.parametrize("text", ["", "🙂", "слово, " * 3_000])
def test_any_ad_can_be_explained(model: Model, text: str) -> None:
    explained(model, replace(PLAIN, name=text, description=text))


def test_a_model_that_reads_no_text_says_so(tmp_path: Path) -> None:
    from training.__main__ import main as train

    train(["--features", "four", "--ads", "200", "--out", str(tmp_path / "four.pkl")])
    with pytest.raises(NotExplainable, match="make train"):
        load_model(tmp_path / "four.pkl").explain(PLAIN)
