"""What the shipped language models say about themselves."""

import csv

from ptlearn.lm.models import pocket_folder


def model_card(name: str = "pocket-m") -> str:
    """What a pocket LM is and how it was made: tokens, FLOPs, seconds, hardware, seed, held-out loss (markdown)."""
    return (pocket_folder(name) / "card.md").read_text(encoding="utf-8")


def loss_table(name: str = "pocket-m") -> list[dict[str, float]]:
    """The losses of a pocket LM on the way, one row per checkpoint: tokens, FLOPs, seconds, nats per token."""
    with open(pocket_folder(name) / "losses.csv", newline="", encoding="utf-8") as file:
        return [{column: float(value or "nan") for column, value in row.items()} for row in csv.DictReader(file)]
