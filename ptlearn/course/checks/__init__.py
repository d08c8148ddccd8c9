"""One file per lesson, `NN_topic.py`, holding `EXERCISES = {"8.2": Exercise(...)}`; found by its number."""
