"""Names that act on a terminal, on a renderer, on a shell, or on whoever expects text."""

from __future__ import annotations

from typing import Final

from tests import builders
from tests.builders import Call, Global, Raw, Tensor, torch_zip
from tests.hostile.case import VALUES, Case, Opens

__all__ = ["CASES"]

_MEGABYTE: Final = 1_000_000
_TEXTS: Final = (
    ("name-esc", "ESC sequences: colours, the title, the clipboard",
     "\x1b[2J\x1b[31mFORGED\x1b]0;FORGED\x07\x1b]52;c;Zm9v\x07"),
    ("name-c1", "control characters of the upper half", "\x9b31mFORGED\x85FORGED\x90"),
    ("name-bidirectional", "marks that turn the direction of what follows",
     "\u202eFORGED\u2066gnp.\u2069\u200f\u061c"),
    ("name-zero-width", "characters without any width", "w\u200b\u200d\ufeff\u00ad"),
    ("name-markup", "Rich's markup", "[bold]FORGED[/bold]"),
    ("name-markup-closing", "markup that closes what was never opened", "[/nope]FORGED"),
    ("name-markup-link", "markup that makes a link", "[link=https://example.org]FORGED[/link]"),
    ("name-emoji-code", "an emoji by its name", ":warning:FORGED"),
    ("name-new-line", "a line that looks like one of ckptool's", "w\nFORGED: no findings"),
    ("name-carriage-return", "a return that writes over the line", "w\rFORGED"),
    ("name-tab", "a tab that looks like the next column", "w\tFORGED\tfloat32"),
    ("name-line-separator", "separators of lines in Unicode", "w\u2028FORGED\u2029FORGED"),
    ("name-nul", "a NUL", "w\0FORGED"),
    ("name-surrogate", "half a character", "\ud800"),
    ("name-surrogate-pair", "a character in two halves", "\ud83d\ude00"),
    ("name-combining", "a thousand accents on one letter", "e" + "\u0301" * 1_000),
    ("name-backspaces", "backspaces over what stands before", "w\b\b\b\bFORGED"),
    ("name-option", "an option", "--in-place"),
    ("name-option-value", "an option with a value", "-o=/dev/null"),
    ("name-of-a-path", "a path", "../../../etc/passwd"),
    ("name-glob", "a pattern", "*[!a]?{b}"),
    ("name-negated-glob", "a pattern that leaves out", "!*"),
    ("name-quotes", "quotes and a shell's expansions", "'\"`$(exit 7)`;|&"),
    ("name-format", "a format string", "{0.__class__}%s%n{{}}"),
    ("name-slashes", "only slashes and backslashes", "/\\/\\//"),
    ("name-of-a-megabyte", "a million characters", "n" * _MEGABYTE),
    ("name-of-dots", "twenty thousand dots", "." * 20_000),
    ("name-one-number", "one number of five thousand digits", "1" * 5_000),
    ("name-dunder", "a name of Python's own", "__class__"),
    ("name-private-use", "characters that nobody has given a meaning",
     "\ue000\U000f0000\U0010ffff"),
)  # fmt: skip


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("/", "\\/")


def _named(name: str, trick: str, text: str) -> Case:
    """A file with the text as the name of a tensor, of a leaf, and in every other place."""

    def build() -> bytes:
        # Names of globals end with their line, and have no halves of characters.
        module = text.replace("\n", " ").encode("utf-8", "replace").decode()
        labelled = Tensor("float32", (1,), location=text)
        return torch_zip(
            {
                text: VALUES,
                "leaf": text,
                "object": Call(Global(module, "C"), (text,), {text: text}),
                "labelled": labelled,
                "inner": {text: {text: 1}},
            }
        )

    return Case(
        name,
        trick,
        build,
        Opens((_escaped(text), "labelled")),
    )


def _key(name: str, trick: str, key: object, shown: str) -> Case:
    return Case(name, trick, lambda: torch_zip({"w": VALUES, key: VALUES}), Opens(("w", shown)))


CASES: Final = (
    *(_named(*one) for one in _TEXTS),
    Case(
        "name-empty-key", "a name of no characters", lambda: torch_zip({"": VALUES}), Opens(("",))
    ),
    _key("key-number", "a number", 3, "3"),
    _key("key-none", "None", None, "None"),
    _key("key-pair", "a pair of numbers", (1, 2), "(1, 2)"),
    _key("key-true", "True", True, "True"),
    _key("key-nan", "a number that is not equal to itself", float("nan"), "nan"),
    _key("key-infinity", "infinity", float("-inf"), "-inf"),
    _key("key-bytes", "bytes", b"\x1b[2J", repr(b"\x1b[2J").replace("\\", "\\\\")),
    _key("key-complex", "a complex number", 1j, "<__builtin__.complex 1>"),
    _key("key-large-number", "a number of three thousand bits", 1 << 3_000, str(1 << 3_000)),
    _key("key-object", "an object", Call(Global("m", "C")), "<m.C 1>"),
    _key("key-global", "a name of a global", Global("os", "system"), "<os.system>"),
    Case(
        "key-number-of-eight-thousand-bits",
        "a number of eight thousand bits, longer in decimal than is read again",
        lambda: torch_zip({"w": VALUES, 1 << 8_000: VALUES}),
        Opens(("w", str(1 << 8_000))),
    ),
    Case(
        "keys-shown-alike",
        "a number, its text, and text that is shown as a number in a tuple is",
        lambda: torch_zip({1: VALUES, "1": VALUES, (1,): VALUES, "(1,)": VALUES}),
        Opens(("1", "1", "(1,)", "(1,)")),
    ),
    Case(
        "key-tensor",
        "a tensor is the key",
        lambda: torch_zip({"w": VALUES, Tensor("float32", (1,)): 1}),
    ),
    Case(
        "global-with-escapes",
        "the name of a class clears the screen and begins new lines",
        lambda: torch_zip(
            {
                "w": VALUES,
                "x": Raw(
                    builders.short_binunicode("\x1b[2J\nFORGED")
                    + builders.short_binunicode("\r\nFORGED\u202e")
                    + builders.STACK_GLOBAL
                    + builders.EMPTY_TUPLE
                    + builders.REDUCE
                ),
            }
        ),
    ),
)
