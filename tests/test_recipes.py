"""The recipes run as they stand, one after the other."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs/recipes.md").read_text(encoding="utf-8")


def test_the_recipes_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(code, "recipes.md", "exec"), names)
    out = capsys.readouterr().out
    assert out.count("It is Lima.") == 3, "trained whole, as an adapter, and merged"
    objective = float(re.search(r"J ([\d.]+)", out)[1])
    assert 0.85 < objective <= 0.9
    before, after = map(float, re.search(r"steps per episode: (\d+), then (\d+)", out).groups())
    assert after > 3 * before
