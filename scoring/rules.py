"""The rules that an ad can break; training/policy.md defines each."""

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
TOPICAL_RULE = "wrong_category"  # the one rule that words alone cannot break
FINE = ""  # the label of an ad that breaks no rule
