"""The names of the columns of `scoring.evidence`, and their places."""

from itertools import combinations

from scoring.knowledge import load_knowledge
from scoring.repetition import REPETITION_FEATURES
from scoring.rules import RULES, TOPICAL_RULE

LEXICAL_RULES = tuple(rule for rule in RULES if rule != TOPICAL_RULE)
BY_RULE = (
    "strong",
    "weak",
    "counter",
    "strong.more",
    "weak.more",
    "strong+counter",
    "weak+counter",
    "weak+weak",
)
_CONTACTS = (
    "phone",
    "phone_perhaps",
    "phone_disguised",
    "serial_number",
    "card_number",
    "email",
    "link",
    "shop_link",
    "handle",
    "spelled_site",
)
_FORM = (
    "odd_words",
    "mixed_words",
    "spaced_out",
    "capitals",
    "exclamations",
    "digits",
    "long_text",
    "short_text",
    "no_words",
    "emoji",
)
_SELLER = ("unverified", "no_images", "one_image", "images")
TOPIC_FEATURES = (
    "foreign",
    "foreign_surely",
    "lexicon_foreign",
    "lexicon_foreign_only",
    "head_foreign",
    "head_near",
    "belongs",
    "unsure",
    "named_category",
)
_INTERACTIONS = (
    "contacts.any",
    "contacts.any+unverified",
    "prepayment_fraud.strong+unverified",
    "prepayment_fraud.weak+no_images",
    "prepayment_fraud.weak+contacts.any",
    "prohibited_goods.weak+likely_category",
    "counterfeit.strong+no_counter",
    "discrimination.strong+people",
    "discrimination.weak+people",
    "discrimination.strong+goods",
    "repetition.run_of_8",
    "repetition.run_of_13",
    "repetition.run_of_20",
    "repetition.hashtags_4",
)
THEME_COUNTS = (2, 3, 4, 5)
THEME_SCALE, PAIR_SCALE = 0.5, 0.7
THEMES = load_knowledge().themes
THEME_PAIRS = {rule: tuple(combinations(range(len(themes)), 2)) for rule, themes in THEMES.items()}
_THEME_FEATURES = tuple(
    name
    for rule, themes in THEMES.items()
    for name in (
        *(f"{rule}.themes_{least}" for least in THEME_COUNTS),
        *(f"{rule}.theme {theme.text}" for theme in themes),
        *(f"{rule}.themes {themes[one].text} + {themes[other].text}" for one, other in THEME_PAIRS[rule]),
    )
)
EVIDENCE = (
    *(f"{rule}.{kind}" for rule in LEXICAL_RULES for kind in BY_RULE),
    *(f"contacts.{name}" for name in _CONTACTS),
    *(f"form.{name}" for name in _FORM),
    *REPETITION_FEATURES,
    *(f"seller.{name}" for name in _SELLER),
    *(f"topic.{name}" for name in TOPIC_FEATURES),
    *_INTERACTIONS,
    *_THEME_FEATURES,
)
PLACE = {name: place for place, name in enumerate(EVIDENCE)}
