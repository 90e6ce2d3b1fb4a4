"""The rules that an ad can break; what each forbids is written in training/policy.md."""

# Gravest first: an ad that breaks several is labelled with the first of them.
RULES = (
    "prohibited_goods",
    "adult_services",
    "prepayment_fraud",
    "contacts",
    "counterfeit",
    "discrimination",
    "spam_keywords",
    "wrong_category",
)
