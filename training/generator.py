"""Composes labelled ads from the grammars, the same for the same seed.

Honest ads, near misses and violations are made of the same goods in the same styles: what differs is the one
thing that breaks the rule. Train and test take different grammars, which share no template and no slot value.
"""

import random
import re
from dataclasses import dataclass, replace

from scoring.ad import Ad
from scoring.rules import RULES
from scoring.topics import are_neighbours
from training.grammar import LANGUAGES, Goods, Grammar, Template, load_grammar
from training.obfuscate import disguise, telephone

DEFAULT_SEED = 20240501

# Of the ads made: how many break a rule, and how many of the others nearly do.
VIOLATIONS = 0.45
NEAR_MISSES = 0.6
# Of the training labels: violations that nobody noticed, honest ads that somebody disliked.
MISSED_LABELS = 0.015
FALSE_LABELS = 0.005

_STRENGTH_WEIGHTS = (0.5, 0.2, 0.15, 0.15)
_RULE_WEIGHTS = {"contacts": 2.0, "prohibited_goods": 1.8, "prepayment_fraud": 1.4}
_PLACEHOLDER = re.compile(r"\{(\w+)(?::(\d+)-(\d+))?\}")
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_NO_STOPS = 0.1
_INNOCENT_ODDITIES = 0.04
_LONG_WINDED, _LISTS = 0.25, 0.15  # shares of the ads
_SPAN = re.compile(r"<([^<>]*)>")
_SYLLABLES = {
    "train": "ma lo ri ka ten do vi sha no be ru gal pi zo",
    "test": "ek jun fy wob ster qua hil dra cez ump ilk yas",
}
_ENDINGS = ("", "_shop", ".store", "_", "88", ".ru", "01", "_home", "x")
_ZONES = ("ru", "com", "net", "shop", "org", "рф")
_EMOJI = "👍🔥✨❗😊📦🙂💥"


@dataclass(frozen=True, slots=True)
class LabelledAd:
    """An ad with its label: ``rule`` is the rule it breaks, or empty, ``near_miss_of`` one it nearly breaks.

    Ads of one ``family`` share words. ``author`` names the file that people's ads come from; it is empty for
    a generated ad.
    """

    ad: Ad
    rule: str
    near_miss_of: str = ""
    language: str = ""
    strength: int = 0
    family: str = ""
    author: str = ""


def generate(n: int, seed: int, split: str = "train") -> list[LabelledAd]:
    """Make ``n`` ads of a split with true labels; training sees them through `with_label_noise`."""
    composer = _Composer(load_grammar(split), split, random.Random(f"{split}:{seed}"))
    return [composer.compose(item_id) for item_id in range(1, n + 1)]


def with_label_noise(ads: list[LabelledAd], seed: int) -> list[LabelledAd]:
    """Mislabel a few as people do: `MISSED_LABELS` of the violations, `FALSE_LABELS` of the rest."""
    rng = random.Random(f"noise:{seed}")
    noisy = []
    for labelled in ads:
        if rng.random() < (MISSED_LABELS if labelled.rule else FALSE_LABELS):
            labelled = replace(
                labelled, rule="" if labelled.rule else labelled.near_miss_of or rng.choice(RULES)
            )
        noisy.append(labelled)
    return noisy


class _Composer:
    def __init__(self, grammar: Grammar, split: str, rng: random.Random) -> None:
        self.grammar = grammar
        self.rng = rng
        self.syllables = _SYLLABLES[split].split()
        self.by_kind: dict[tuple[str, bool, str], list[Template]] = {}
        for template in grammar.templates:
            key = template.rule, template.near, template.language
            self.by_kind.setdefault(key, []).append(template)

    def compose(self, item_id: int) -> LabelledAd:
        rng = self.rng
        language = rng.choice(LANGUAGES)
        rule = near = ""
        if rng.random() < VIOLATIONS:
            rule = rng.choices(RULES, [_RULE_WEIGHTS.get(rule, 1.0) for rule in RULES])[0]
        elif rng.random() < NEAR_MISSES:
            near = rng.choices(RULES, [_RULE_WEIGHTS.get(rule, 1.0) for rule in RULES])[0]
        strength = rng.choices((0, 1, 2, 3), _STRENGTH_WEIGHTS)[0] if rule else 0
        if "wrong_category" in (rule, near):
            category, name, text, family = self._misplaced(language, bool(rule))
            strength = 0
        elif rule or near:
            template = rng.choice(self.by_kind[rule or near, not rule, language])
            category, name, text = self._from_template(template, strength)
            family = template.family
            strength = strength if "<" in template.text or "{phone}" in template.text else 0
        else:
            category = rng.randint(1, 20)
            name, text = self._honest(language, category)
            family = f"honest:{language}:{category}"
        ad = self._with_seller(item_id, name, text, category, bool(rule))
        return LabelledAd(ad, rule, near, language, strength, family)

    def _with_seller(self, item_id: int, name: str, text: str, category: int, violates: bool) -> Ad:
        rng = self.rng
        return Ad(
            item_id=item_id,
            seller_id=item_id,
            is_verified_seller=rng.random() < (0.35 if violates else 0.5),
            name=self._styled(name)[:200],
            description=self._styled(text),
            category=category if rng.random() < 0.97 or violates else rng.choice((0, *range(21, 101))),
            images_qty=min(10, int(rng.expovariate(1 / (2.5 if violates else 3.5)))),
        )

    def _honest(self, language: str, category: int, extra: str = "") -> tuple[str, str]:
        """Compose an honest ad; ``extra`` is put somewhere among its sentences."""
        rng, goods = self.rng, self.grammar.goods[language]
        name = rng.choice(goods.items[category])
        sentences = rng.sample(
            goods.details[category], k=min(rng.randint(0, 3), len(goods.details[category]))
        )
        sentences += rng.sample(goods.common, k=rng.randint(0, 3))
        if rng.random() < _LONG_WINDED:
            sentences += rng.sample(goods.prose, k=rng.randint(2, 8))
        rng.shuffle(sentences)
        if rng.random() < _LISTS:
            sentences.append(self._list(goods, category))
        if rng.random() < 0.3:
            sentences.append(rng.choice(goods.close))
        if extra:
            sentences.insert(rng.randint(0, len(sentences)), extra)
        if rng.random() < 0.2:
            sentences.insert(0, name)
        return name, ". ".join(sentences)

    def _list(self, goods: Goods, category: int) -> str:
        """Write a list as of many honest ads: lines of properties, of prices, or of the things in a lot."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.5:
            return "\n".join(rng.sample(goods.spec, k=rng.randint(3, 8)))
        things = rng.sample(goods.items[category], k=min(rng.randint(3, 7), len(goods.items[category])))
        if kind < 0.8:
            return "\n".join(f"{thing} - {rng.randint(1, 60)}0" for thing in things)
        return ", ".join(things)

    def _misplaced(self, language: str, foreign: bool) -> tuple[int, str, str, str]:
        belongs = self.rng.randint(1, 19)
        others = [
            category
            for category in range(1, 20)
            if category != belongs and are_neighbours(belongs, category) is not foreign
        ]
        category = self.rng.choice(others if others else [20])
        if not foreign and self.rng.random() < 0.4:
            category = self.rng.choice((0, 20, *range(21, 101)))
        name, text = self._honest(language, belongs)
        return category, name, text, f"misplaced:{language}:{belongs}"

    def _from_template(self, template: Template, strength: int) -> tuple[int, str, str]:
        rng = self.rng
        category = rng.choice(template.categories or tuple(range(1, 20)))
        text = self._filled(template, template.text, category, strength)
        if not template.whole:
            name, description = self._honest(template.language, category, text)
            return category, name, description
        name, _, description = text.partition("::")
        if rng.random() < 0.4:
            description = (
                f"{description.strip(' .')}. {rng.choice(self.grammar.goods[template.language].common)}"
            )
        return category, name.strip(), description.strip()

    def _filled(self, template: Template, text: str, category: int, strength: int) -> str:
        rng = self.rng
        goods = self.grammar.goods[template.language]
        slots = self.grammar.slots.get((template.rule, template.language), {})
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        fixed: dict[str, str] = {}

        def value(match: re.Match[str]) -> str:
            name, low, high = match.groups()
            if low:
                return str(rng.randint(int(low), int(high)))
            if name in slots:
                return rng.choice(slots[name])
            if name in ("item", "same"):  # the same thing wherever the template names it
                return fixed.setdefault(
                    name, rng.choice(goods.items[category] if name == "item" else goods.common)
                )
            return self._special(name, template.language, goods, category, strength)

        text = _PLACEHOLDER.sub(value, text)
        return _SPAN.sub(lambda match: disguise(rng, match[1], strength), text)

    def _special(self, name: str, language: str, goods: Goods, category: int, strength: int) -> str:
        rng = self.rng
        if name == "phone":
            return telephone(rng, language, strength)
        if name == "detail":
            return rng.choice(goods.details[category])
        if name in ("common", "close"):
            return rng.choice(getattr(goods, name))
        if name == "other":
            return rng.choice(goods.items[rng.randint(1, 19)])
        if name == "serial":
            digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(7, 15)))
            return digits if rng.random() < 0.6 else f"{digits[:4]}-{digits[4:8]} {digits[8:]}".strip()
        if name == "card":
            return " ".join("".join(rng.choice("0123456789") for _ in range(4)) for _ in range(4))
        nick = "".join(rng.sample(self.syllables, k=rng.randint(2, 3)))
        if name == "handle":
            return rng.choice(("@", "@", "")) + nick + rng.choice(_ENDINGS[1:])
        zone = rng.choice(_ZONES)
        if name == "email":
            at, dot = (
                ("@", ".")
                if strength < 2
                else ((" собака ", " точка ") if language == "ru" else (" at ", " dot "))
            )
            return f"{nick}{at}mail{dot}{zone}"
        if name == "site":
            return (
                f"{nick}.{zone}"
                if strength < 2
                else f"{nick} {'точка' if language == 'ru' else 'dot'} {zone}"
            )
        raise KeyError(f"no slot {name!r} in {language}")

    def _styled(self, text: str) -> str:
        """Write as people do: without capitals, without stops, with line breaks, signs and typing errors."""
        rng = self.rng
        style = rng.random()
        if style < 0.25:
            text = text.lower()
        elif style < 0.29:
            text = text.upper()
        if rng.random() < _NO_STOPS:
            text = text.replace(". ", " ").replace(",", "")
        elif rng.random() < 0.2:
            text = text.replace(". ", rng.choice((", ", " ", "\n", "! ", " / ", "; ")))
        if rng.random() < 0.1 and len(text) > 20:
            place = rng.randrange(1, len(text) - 2)
            if text[place].isalpha() and text[place + 1].isalpha():
                text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        if rng.random() < _INNOCENT_ODDITIES:  # a keyboard left in the other layout hides nothing
            text = disguise(rng, text, 1) if rng.random() < 0.5 else text.replace("о", "o")
        if rng.random() < 0.06:
            text += " " + rng.choice(_EMOJI) * rng.randint(1, 3)
        return text
