"""Predictions: what a student expects of a run, typed before it, and shown beside what was measured."""

from typing import Any


class Predictions:
    """The guesses of a lesson by name; an empty one is `...`."""

    def __init__(self, guesses: dict[str, Any]):
        self.guesses = guesses

    def reveal(self, name: str, measured: Any) -> None:
        """Print what was measured beside the guess of that name.

        >>> predict(share=0.5, order=...).reveal("share", 0.925)
        share: measured 0.93, your guess 0.50
        >>> predict(share=0.5, order=...).reveal("order", "none")
        order: measured none (no guess typed)
        """
        guess = self.guesses.get(name, ...)
        beside = " (no guess typed)" if guess is ... or guess is None or guess == "" else f", your guess {said(guess)}"
        print(f"{name.replace('_', ' ')}: measured {said(measured)}{beside}")


def predict(**guesses: Any) -> Predictions:
    """Note guesses, whatever they are; `...` stands for one that is not made."""
    return Predictions(guesses)


def said(value: Any) -> str:
    """A value in words, a share or a number with two digits behind the point."""
    return f"{value:.2f}" if isinstance(value, float) else " ".join(str(value).split())
