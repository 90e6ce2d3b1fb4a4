"""The categories that have names. The other numbers of 0..100 are valid; the model has no words for them."""

CATEGORIES = {
    1: "phones and accessories",
    2: "electronics and appliances",
    3: "clothes",
    4: "shoes, bags, accessories",
    5: "furniture",
    6: "home and garden",
    7: "kids",
    8: "hobby, books, music, collecting",
    9: "pets",
    10: "services",
    11: "jobs",
    12: "real estate",
    13: "vehicles",
    14: "car parts",
    15: "beauty and health",
    16: "food",
    17: "tickets and vouchers",
    18: "tools",
    19: "sport",
    20: "other",
}
