"""The ads that a first run shows: Russian and English, honest and not, the same for the same seed."""

import random

from scoring.ad import Ad

# (category, name, description); the last few break a rule, as some ads on any marketplace do.
_TEXTS = (
    (
        1,
        "iPhone 12, 128 ГБ",
        "Состояние хорошее, аккумулятор 87 %, коробка и зарядка в комплекте. Торг при осмотре.",
    ),
    (1, "Samsung Galaxy A52", "Bought two years ago, works well, one scratch on the back. Charger included."),
    (
        2,
        "Стиральная машина Bosch",
        "Работает исправно, продаём из-за переезда. Самовывоз, третий этаж, лифт есть.",
    ),
    (2, "27 inch monitor", "IPS, 1440p, no dead pixels. Comes with the power cable and an HDMI cable."),
    (3, "Зимняя куртка, размер 48", "Тёплая, надевали один сезон. Молния целая, без пятен."),
    (4, "Leather handbag", "No brand, real leather, brown. A little worn at the handles."),
    (5, "Кухонный стол и 4 стула", "Массив берёзы, размер 120 на 75. Разобран, влезает в легковую машину."),
    (6, "Garden hose, 25 m", "Used for one summer, does not leak. Two connectors included."),
    (
        7,
        "Детская кроватка с матрасом",
        "Матрас новый, в плёнке. Кроватка в хорошем состоянии, все болты на месте.",
    ),
    (8, "Acoustic guitar", "Yamaha, new strings, with a soft case. Good for a beginner."),
    (9, "Котята в добрые руки", "Три котёнка, два месяца, к лотку приучены. Отдам бесплатно."),
    (10, "Ремонт квартир", "Плитка, обои, электрика. Смета после осмотра, договор, гарантия год."),
    (
        11,
        "Barista wanted",
        "Full time, two days on, two days off, paid training. A small coffee shop near the park.",
    ),
    (
        12,
        "Сдаётся двухкомнатная квартира",
        "54 метра, пятый этаж, рядом метро. Залог при подписании договора.",
    ),
    (13, "Toyota Corolla 2014", "One owner, 98,000 km, full service history. Inspection at any garage."),
    (14, "Зимние шины 205/55 R16", "Комплект 4 штуки, остаток протектора 6 мм, без грыж и порезов."),
    (18, "Cordless drill", "18 V, two batteries, charger and case. Works as it should."),
    (19, "Велосипед горный", "Рама 19, 24 скорости, тормоза дисковые. Требуется настройка переключателя."),
    (1, "Новый айфон дёшево", "Пишите в вотсап 8 900 000 00 00, отправлю после предоплаты на карту."),
    (10, "Easy income", "Join today, bring two friends, earn every week! Write to @example_bot in Telegram."),
    (20, "Документы любые", "Права, дипломы, больничные. Быстро, без лишних вопросов. Предоплата."),
)


def sample_ads(n: int, seed: int) -> list[Ad]:
    """Make ``n`` ads with ids 1..n; all ads of one seller agree on whether the seller is verified."""
    rng = random.Random(seed)
    sellers = max(1, n // 3)
    verified = [rng.random() < 0.5 for _ in range(sellers)]
    ads = []
    for item_id in range(1, n + 1):
        category, name, description = rng.choice(_TEXTS)
        seller_id = rng.randint(1, sellers)
        ads.append(
            Ad(
                item_id=item_id,
                seller_id=seller_id,
                is_verified_seller=verified[seller_id - 1],
                name=name,
                description=description,
                category=category,
                images_qty=rng.randint(0, 10),
            )
        )
    return ads
