"""`module:callable(arguments)` is read as text: literals only, and nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckptool.errors import SpecError
from ckptool.spec.target import Target, classes_in, read_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("package.module:Model", Target("package.module", "Model")),
        ("models.py:Model", Target("models.py", "Model")),
        ("../some folder/models.py:Model", Target("../some folder/models.py", "Model")),
        ("a.py:Model()", Target("a.py", "Model", (), {})),
        ("a.py:Model.small()", Target("a.py", "Model.small", (), {})),
        (
            "a.py:Model(1, -2.5, 'x', depth=[1, None], **{})".replace(", **{}", ""),
            Target("a.py", "Model", (1, -2.5, "x"), {"depth": [1, None]}),
        ),
        (
            "m:f({'a': (True, False)}, b'x', text=\"a:b(c)\")",
            Target("m", "f", ({"a": (True, False)}, b"x"), {"text": "a:b(c)"}),
        ),
    ],
)
def test_a_target_is_a_place_a_name_and_literal_arguments(text: str, target: Target) -> None:
    assert read_target(text) == target
    assert target.is_file == target.where.endswith(".py")


@pytest.mark.parametrize(
    "text", ["model.pt", "spec.json", "", ":", "a b:c", "1x:f", "a..b:f", "x:"]
)
def test_other_text_is_no_target(text: str) -> None:
    assert read_target(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "a.py:Model(size)",
        "a.py:Model(open('x'))",
        "a.py:Model(1 + 1)",
        "a.py:Model(*[1])",
        "a.py:Model(**{'a': 1})",
        "a.py:Model([x for x in y])",
        "a.py:Model(f'{1}')",
        "a.py:Model(1",
        "a.py:(lambda: 1)()",
        "a.py:'text'",
        "a.py:Model()()",
        "a.py:f(" + "(" * 5_000,
        "a.py:f(a=1, a=2)",
        "a.py:f(" + "-" * 900 + "x)",
        "a.py:f(1" + "+1" * 2_000 + ")",
        "a.py:f(x" + ".y" * 2_000 + ")",
        "a.py:f(x + 0x" + "f" * 5_000 + ")",
    ],
)
def test_what_would_have_to_be_evaluated_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        read_target(text)


def test_an_argument_that_is_no_literal_is_named_as_it_was_written() -> None:
    with pytest.raises(SpecError, match=re.escape("the argument 'é + x [0]' is no literal")):
        read_target("a.py:f(1, é + x [0])")
    with pytest.raises(SpecError, match=re.escape("the argument 'size' is no literal")):
        read_target("a.py:f(depth=size)")


def test_a_name_may_have_any_number_of_parts() -> None:
    target = read_target("a.py:x" + ".y" * 2_000)
    assert target is not None
    assert target.name.count(".y") == 2_000


def test_the_classes_of_a_file_are_found_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "models.py"
    path.write_text("raise SystemExit\nclass A: ...\nclass B:\n    class C: ...\n")
    assert classes_in(path) == ["A", "B"]
    path.write_text("class A(")
    assert classes_in(path) == []
    assert classes_in(tmp_path / "missing.py") == []
