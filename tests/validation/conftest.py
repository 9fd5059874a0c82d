"""The zoo is imported by validations, each file by itself, and not collected."""

collect_ignore = ["zoo"]
