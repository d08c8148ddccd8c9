"""A task over six words, small enough to list all its texts."""

from ptlearn.rl.tasks import Problem, Task

WORDS = ("end", "a", "b", "c", "d", "e")


def counted(word):
    """Share of the four words that are this one."""
    return lambda text: text.split().count(word) / 4


def toy_task(**changes):
    starts = ["a", "a b", "b a c", "d", "e e"]
    train = tuple(Problem(start, counted("abcde"[i])) for i, start in enumerate(starts))
    fields = {"name": "count", "train": train, "held_out": train[:2], "max_new_tokens": 4, "stop": (), "chat": False}
    return Task(**{**fields, **changes})
