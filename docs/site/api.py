"""Pages of the package, made from its sources without importing it: signature, docstring, folded source.

Order: modules; the page of a module; a function, a class; a docstring as Markdown.
"""

import ast
import re
from pathlib import Path

LABELS = ("Args", "Returns", "Raises", "Yields", "Source", "Holds", "State")
SPECIAL = re.compile(r"([\\*_\[\]<>$#{}|~])")
HIDDEN = ("ptlearn.__main__", "ptlearn.course.checks")  # an entry point; the answers' checks, a file for each lesson


def modules(package: Path) -> dict[str, Path]:
    """Each module of the package by its dotted name, a room before what stands in it."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if not name.startswith(HIDDEN):
            found[name] = path
    return dict(sorted(found.items()))


def objects(path: Path, module: str) -> set[str]:
    """The dotted names of what a module offers: functions, classes, their methods.

    >>> "ptlearn.rollout.Rollout" in objects(Path("ptlearn/rollout.py"), "ptlearn.rollout")
    True
    """
    found = {module}
    for node in public(ast.parse(path.read_text(encoding="utf-8"))):
        found.add(f"{module}.{node.name}")
        if isinstance(node, ast.ClassDef):
            found |= {f"{module}.{node.name}.{method.name}" for method in public(node)}
    return found


def module_page(module: str, path: Path, root: Path) -> str:
    """The page of one module."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    file = path.relative_to(root).as_posix()
    parts = [f"# {escape(module)}", f":::{{py:module}} {module}\n:::", f"File {escape(file)}."]
    parts.append(markdown(ast.get_docstring(tree)))
    parts += [entry(node, source) for node in public(tree)]
    return "\n\n".join(filter(None, parts)) + "\n"


def public(tree: ast.AST) -> list:
    """The functions and classes of a module, or the methods of a class, that are there to be used."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def entry(node, source: str) -> str:
    """A function or a class: how it is called, what it says of itself, its source."""
    kind = "py:class" if isinstance(node, ast.ClassDef) else "py:function"
    parts = [markdown(ast.get_docstring(node)), folded(ast.get_source_segment(source, node))]
    if kind == "py:class":
        parts += [method(inner) for inner in public(node)]
    return directive(kind, signature(node), parts, fence="::::::")


def method(node: ast.FunctionDef) -> str:
    """A method or a property of a class; its source stands in the class's."""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if decorators & {"property", "cached_property", "functools.cached_property"}:
        return directive("py:property", node.name, [markdown(ast.get_docstring(node))], fence=":::::")
    options = [f":{name}:" for name in ("classmethod", "staticmethod") if name in decorators]
    text = signature(node, skip=0 if "staticmethod" in decorators else 1)
    return directive("py:method", text, [*options, markdown(ast.get_docstring(node))], fence=":::::")


def directive(kind: str, argument: str, parts: list[str], fence: str) -> str:
    """A MyST directive around some Markdown; options come first, without a blank line before them."""
    options = "".join(f"\n{part}" for part in parts if part.startswith(":") and part.endswith(":"))
    body = "\n\n".join(part for part in parts if part and not (part.startswith(":") and part.endswith(":")))
    return f"{fence}{{{kind}}} {argument}{options}\n\n{body}\n{fence}"


def signature(node, skip: int = 0) -> str:
    """How a function or a class is called, on one line.

    >>> signature(ast.parse("def f(a: int, *, b=2) -> str: ...").body[0])
    'f(a: int, *, b=2) -> str'
    >>> signature(ast.parse("class C:\\n    a: int\\n    b: float = 1.0").body[0])
    'C(a: int, b: float = 1.0)'
    """
    if isinstance(node, ast.ClassDef):
        own = [inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"]
        return signature(own[0], skip=1).replace("__init__", node.name, 1) if own else f"{node.name}{fields(node)}"
    arguments = node.args
    arguments.args = arguments.args[skip:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    return f"{node.name}({ast.unparse(arguments)}){returns}"


def fields(node: ast.ClassDef) -> str:
    """The arguments of a class that says them as fields; nothing for another."""
    made = [ast.unparse(decorator).startswith("dataclass") for decorator in node.decorator_list]
    if not (any(made) or any(ast.unparse(base) == "NamedTuple" for base in node.bases) or not made):
        return ""
    found = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
    return f"({', '.join(shown(inner) for inner in found)})" if found else ""


def shown(field: ast.AnnAssign) -> str:
    """A field as an argument; a default that is made anew for each object is three dots."""
    default = ast.unparse(field.value) if field.value else ""
    default = "..." if default.startswith("field(") else default
    return f"{ast.unparse(field.target)}: {ast.unparse(field.annotation)}" + (f" = {default}" if default else "")


def folded(source: str) -> str:
    """Source that opens on a click."""
    return f'<details class="source"><summary>Source</summary>\n\n{fenced(source, "python")}\n\n</details>'


def fenced(text: str, language: str) -> str:
    """A code block, fenced by more backticks than it holds."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


# ---------------------------------------------------------------- docstrings


def markdown(docstring: str | None) -> str:
    """A docstring of the house as Markdown: prose, labelled parts, indented lines, doctests.

    >>> print(markdown("Half of x.\\n\\n    y = x / 2\\n\\nReturns: a float."))
    Half of x.
    <BLANKLINE>
    ```text
    y = x / 2
    ```
    <BLANKLINE>
    **Returns:** a float.
    """
    return "\n\n".join(rendered(kind, lines) for kind, lines in blocks((docstring or "").split("\n")))


def blocks(lines: list[str]) -> list[tuple[str, list[str]]]:
    """The parts of a docstring with their kinds: prose, label, indented, doctest."""
    found: list[tuple[str, list[str]]] = []
    kind = ""
    for line in lines:
        if not line.strip():
            kind = ""
            continue
        before, kind = kind, kind_of(line, kind)
        if kind == before and kind != "label" or before == kind == "label" and line.startswith(" "):
            found[-1][1].append(line)
        else:
            found.append((kind, [line]))
    return found


def kind_of(line: str, before: str) -> str:
    """What a line of a docstring belongs to, given the line before it ("" after a blank one)."""
    if before == "doctest" or line.lstrip().startswith(">>>"):
        return "doctest"
    if re.match(rf"({'|'.join(LABELS)}):", line) or before == "label" and line.startswith(" "):
        return "label"
    return "indented" if line.startswith("    ") and before in ("", "indented") else "prose"


def rendered(kind: str, lines: list[str]) -> str:
    """One part of a docstring as Markdown."""
    if kind in ("doctest", "indented"):
        shift = min(len(line) - len(line.lstrip()) for line in lines)
        return fenced("\n".join(line[shift:] for line in lines), "pycon" if kind == "doctest" else "text")
    text = " ".join(line.strip() for line in lines)
    if kind == "prose":
        return escape(text)
    label, _, rest = text.partition(":")
    return f"**{label}:** {escape(rest.strip())}"


def escape(text: str) -> str:
    """Plain text for Markdown; what stands between backticks stays code.

    >>> escape("a_1 * b in `c_1`")
    'a\\\\_1 \\\\* b in `c_1`'
    """
    parts = text.split("`")
    return "`".join(part if index % 2 else SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))
