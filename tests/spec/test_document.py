"""The JSON form of a spec: what goes in comes out, and what is wrong is told by its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptool.checkpoint.keypath import display
from ckptool.errors import SpecError
from ckptool.spec.document import is_spec_document, read_document, write_document
from ckptool.spec.document_form import VERSION, document_schema
from ckptool.spec.model_spec import (
    Computed,
    Content,
    Fill,
    InitialValue,
    LoadHook,
    ModelSpec,
    ModuleSpec,
    Random,
    Range,
    TensorSpec,
    UnknownValue,
)
from ckptool.tensors.dtypes import DTYPES
from tests.strategies import mutations

# Specs -----------------------------------------------------------------------------------------

_OWN_NAMES: Final = st.sampled_from(
    ["weight", "bias", "x", "running_mean", "0", "a/b", 'q":', "名"]
)
_TEXTS: Final = st.text(st.characters(codec="utf-8"), max_size=8)
_BITS: Final = {
    name: int(name.lstrip("uint"))
    for name, dtype in DTYPES.items()
    if dtype.kind in ("int", "uint")
}


def _integers(dtype: str) -> st.SearchStrategy[int]:
    bits = _BITS[dtype]
    if dtype.startswith("u"):
        return st.integers(0, (1 << bits) - 1)
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)


def _fills(dtype: str | None) -> st.SearchStrategy[InitialValue]:
    if dtype == "bool":
        return st.booleans().map(Fill)
    if dtype in _BITS:
        return _integers(dtype).map(Fill)
    numbers = st.floats(allow_nan=False) | st.just(math.nan) | st.integers(-(1 << 70), 1 << 70)
    return numbers.map(Fill)


@st.composite
def _initial_values(
    draw: st.DrawFn, dtype: str | None, shape: tuple[int, ...] | None
) -> InitialValue:
    plain: st.SearchStrategy[InitialValue] = st.sampled_from(
        [
            Random(),
            Computed(),
            UnknownValue("made from parameters"),
            UnknownValue("of a saved module"),
            UnknownValue("not initialised"),
            UnknownValue("of an instance"),
            UnknownValue("of a kind that is not kept"),
        ]
    )
    kinds: list[st.SearchStrategy[InitialValue]] = [plain, _fills(dtype)]
    if dtype is not None and shape is not None:
        size = DTYPES[dtype].nbytes_of(math.prod(shape))
        kinds.append(st.binary(min_size=size, max_size=size).map(Content))
        if dtype in _BITS:
            last = max(math.prod(shape) - 1, 0)
            first, end = draw(st.tuples(_integers(dtype), _integers(dtype)))
            # Towards zero, so that the last number is no further than the end.
            step = abs(end - first) // last if last else end
            kinds.append(st.just(Range(first, -step if last and end < first else step)))
    chosen: InitialValue = draw(st.one_of(kinds))
    return chosen


@st.composite
def _tensors(draw: st.DrawFn) -> TensorSpec:
    dtype = draw(st.none() | st.sampled_from(sorted(DTYPES)))
    shape = draw(st.none() | st.lists(st.integers(0, 3), max_size=3).map(tuple))
    if draw(st.booleans()):
        return TensorSpec("parameter", True, dtype, shape)
    is_persistent = draw(st.sampled_from([True, False, None]))
    initial = draw(st.none() | _initial_values(dtype, shape))
    return TensorSpec("buffer", is_persistent, dtype, shape, None, initial)


@st.composite
def _hooks(draw: st.DrawFn) -> LoadHook:
    values = st.booleans() | st.integers(-(1 << 70), 1 << 70) | _TEXTS
    return LoadHook(draw(_TEXTS), draw(st.dictionaries(_TEXTS, values, max_size=2)))


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Any spec that a model can have, and many that none has."""
    paths = draw(st.lists(_TEXTS.filter(bool), max_size=4, unique=True))
    modules = {
        path: ModuleSpec(
            draw(st.none() | _TEXTS),
            draw(st.none() | st.lists(_hooks(), max_size=2).map(tuple)),
            draw(st.booleans()),
            draw(st.lists(st.sampled_from(["none", ""]), max_size=2).map(tuple)),
            (),
        )
        for path in ["", *paths]
    }
    tensors: dict[str, TensorSpec] = {}
    for path in modules:
        for own in draw(st.lists(_OWN_NAMES, max_size=3, unique=True)):
            name = f"{path}.{own}" if path else own
            firsts = [key for key, tensor in tensors.items() if tensor.tied_to is None]
            is_tied = draw(st.booleans())
            if firsts and is_tied:
                first = draw(st.sampled_from(firsts))
                dtype, shape = tensors[first].dtype, tensors[first].shape
                tensors[name] = TensorSpec("parameter", True, dtype, shape, first)
            else:
                tensors[name] = draw(_tensors())
    return ModelSpec(
        draw(_TEXTS),
        draw(st.sampled_from(["constructed", "instance", "module", "torchscript", "exported"])),
        draw(st.none() | _TEXTS),
        tensors,
        modules,
    )


def small() -> ModelSpec:
    """A spec with one of everything."""
    tensors = {
        "weight": TensorSpec("parameter", True, "float32", (2, 3)),
        "head.weight": TensorSpec("parameter", True, "float32", (2, 3), "weight"),
        "lazy": TensorSpec("parameter", True, None, None),
        "eps": TensorSpec("buffer", True, "float64", (), None, Fill(1e-5)),
        "mask": TensorSpec("buffer", False, "bool", (2,), None, Fill(True)),
        "low": TensorSpec("buffer", False, "float32", (2,), None, Fill(-math.inf)),
        "big": TensorSpec("buffer", True, "uint64", (1,), None, Fill((1 << 64) - 1)),
        "ids": TensorSpec("buffer", False, "int64", (1, 4), None, Range(0, 1)),
        "few": TensorSpec("buffer", None, "int16", (2,), None, Content(b"\1\0\2\0")),
        "u": TensorSpec("buffer", True, "float32", (3,), None, Random()),
        "rope": TensorSpec("buffer", False, "float32", (99,), None, Computed()),
        "of_weight": TensorSpec(
            "buffer", True, "float32", (2,), None, UnknownValue("made from parameters")
        ),
    }
    hook = LoadHook("torch.x", {"track_running_stats": True, "dim": 1, "name": "weight"})
    modules = {
        "": ModuleSpec("my.Net", (hook,), True, ("bias",), ("tail",)),
        "head": ModuleSpec(None, None),
    }
    return ModelSpec("models.py:Net", "constructed", "2.13.0", tensors, modules)


# There and back --------------------------------------------------------------------------------


@given(specs())
@example(small())
def test_a_spec_is_read_as_it_was_written(spec: ModelSpec) -> None:
    text = write_document(spec)
    again = read_document(text.encode())
    # NaN equals nothing, and True equals 1; what they look like tells them apart.
    assert repr(again) == repr(spec)
    assert write_document(again) == text
    assert is_spec_document(text.encode()[:30])


@given(specs())
@example(small())
def test_what_is_written_is_strict_json_of_the_published_schema(spec: ModelSpec) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(write_document(spec), parse_constant=refuse)
    jsonschema.Draft202012Validator(published_schema()).validate(document)


def published_schema() -> Any:
    file = resources.files("ckptool.spec") / "schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_published_schema_is_that_of_the_form() -> None:
    # Where the form is meant to change: `json.dumps(document_schema(), indent=1)` into the file.
    assert published_schema() == document_schema()
    jsonschema.Draft202012Validator.check_schema(published_schema())


def test_each_tensor_and_each_module_has_its_line() -> None:
    lines = write_document(small()).splitlines()
    assert lines[:2] == ["{", ' "ckptool_spec": 1,']
    assert lines[6] == (
        '  "weight": {"kind": "parameter", "persistent": true, "dtype": "float32", '
        '"shape": [2, 3], "tied_to": null, "initial": null},'
    )
    assert lines[-3:] == [
        '  "head": {"type": null, "load_hooks": null, "extra_state": false, '
        '"none_tensors": [], "none_modules": []}',
        " }",
        "}",
    ]


def test_a_spec_can_be_laid_out_anew() -> None:
    document = json.loads(write_document(small()))
    for text in (
        json.dumps(document, indent=4),
        json.dumps(document, separators=(",", ":")),
        json.dumps(document, sort_keys=True),
        "\ufeff" + json.dumps(document, ensure_ascii=False),
    ):
        assert read_document(text.encode()) == small()
        assert is_spec_document(text.encode())


@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        (b'{"ckptool_spec": 1, ', True),
        (b' \n{\n\t"ckptool_spec" :', True),
        (b'{"ckptool": 1, "command": "list"', False),
        (b'{"a": {"ckptool_spec": 1}}', False),
        (b'["ckptool_spec"]', False),
        (b"", False),
        (b"PK\3\4", False),
    ],
)
def test_only_a_spec_begins_as_a_spec(head: bytes, is_one: bool) -> None:
    assert is_spec_document(head) is is_one


# What is refused -------------------------------------------------------------------------------

Edit = Callable[[Any], object]

WRONG: dict[str, tuple[Edit, str]] = {
    "no version": (lambda d: d.pop("ckptool_spec"), "ckptool_spec"),
    "another version": (lambda d: d.update(ckptool_spec=0), "ckptool_spec"),
    "a version that is no number": (lambda d: d.update(ckptool_spec="1"), "ckptool_spec"),
    "a version that is true": (lambda d: d.update(ckptool_spec=True), "ckptool_spec"),
    "a version that is a float": (lambda d: d.update(ckptool_spec=1.0), "ckptool_spec"),
    "a field too many": (lambda d: d.update(model="x"), "model"),
    "no source": (lambda d: d.pop("source"), "source"),
    "an origin that is none": (lambda d: d.update(origin="magic"), "origin"),
    "a torch version that is a number": (lambda d: d.update(torch_version=2.6), "torch_version"),
    "tensors in a list": (lambda d: d.update(tensors=[]), "tensors"),
    "no modules": (lambda d: d.pop("modules"), "modules"),
    "no module at the empty path": (lambda d: d.update(tensors={}, modules={}), "modules"),
    "a tensor that is null": (lambda d: d["tensors"].update(u=None), "tensors/u"),
    "a tensor's field mistyped": (
        lambda d: d["tensors"]["u"].update(dtpe="float32"), "tensors/u/dtpe"
    ),
    "a tensor's field lacking": (lambda d: d["tensors"]["u"].pop("initial"), "tensors/u/initial"),
    "no kind": (lambda d: d["tensors"]["u"].pop("kind"), "tensors/u/kind"),
    "a kind that is none": (lambda d: d["tensors"]["u"].update(kind="x"), "tensors/u/kind"),
    "a dtype that is none": (
        lambda d: d["tensors"]["head.weight"].update(dtype="float33"), "tensors/head.weight/dtype"
    ),
    "a dtype with its module": (
        lambda d: d["tensors"]["u"].update(dtype="torch.float32"), "tensors/u/dtype"
    ),
    "persistence in words": (
        lambda d: d["tensors"]["u"].update(persistent="yes"), "tensors/u/persistent"
    ),
    "a parameter that is not saved": (
        lambda d: d["tensors"]["weight"].update(persistent=False), "tensors/weight/persistent"
    ),
    "a parameter that may not be saved": (
        lambda d: d["tensors"]["weight"].update(persistent=None), "tensors/weight/persistent"
    ),
    "a negative size": (lambda d: d["tensors"]["u"].update(shape=[2, -3]), "tensors/u/shape/1"),
    "a size that is a float": (
        lambda d: d["tensors"]["u"].update(shape=[3.0]), "tensors/u/shape/0"
    ),
    "a size that is true": (lambda d: d["tensors"]["u"].update(shape=[True]), "tensors/u/shape/0"),
    "a size with content that no tensor has": (
        lambda d: d["tensors"]["few"].update(shape=[10**3999, 10**3999]), "tensors/few/shape/0"
    ),
    "a size that no tensor has beside none": (
        lambda d: d["tensors"]["u"].update(shape=[0, 1 << 63]), "tensors/u/shape/1"
    ),
    "a shape that is a number": (lambda d: d["tensors"]["u"].update(shape=3), "tensors/u/shape"),
    "too many dimensions": (lambda d: d["tensors"]["u"].update(shape=[1] * 65), "tensors/u/shape"),
    "too many elements": (
        lambda d: d["tensors"]["u"].update(shape=[1 << 32] * 2), "tensors/u/shape"
    ),
    "a tie to nothing": (lambda d: d["tensors"]["u"].update(tied_to="v"), "tensors/u/tied_to"),
    "a tie to itself": (lambda d: d["tensors"]["u"].update(tied_to="u"), "tensors/u/tied_to"),
    "a tie to one that is tied": (
        lambda d: d["tensors"]["u"].update(tied_to="head.weight"), "tensors/u/tied_to"
    ),
    "a tie to another shape": (
        lambda d: d["tensors"]["u"].update(tied_to="weight"), "tensors/u/tied_to"
    ),
    "an owner that is not there": (
        lambda d: d["tensors"].update({"no.x/y": d["tensors"]["u"]}), "tensors/no.x\\/y"
    ),
    "a tensor without a name": (
        lambda d: d["tensors"].update({"head.": d["tensors"]["u"]}), "tensors/head."
    ),
    "a tensor that is None too": (
        lambda d: d["tensors"].update(bias=d["tensors"]["u"]), "tensors/bias"
    ),
    "a parameter with an initial value": (
        lambda d: d["tensors"]["weight"].update(initial={"kind": "random"}),
        "tensors/weight/initial",
    ),
    "an initial value of no kind": (
        lambda d: d["tensors"]["u"].update(initial={}), "tensors/u/initial/kind"
    ),
    "an initial value of another kind": (
        lambda d: d["tensors"]["u"].update(initial={"kind": "zeros"}), "tensors/u/initial/kind"
    ),
    "an initial value that is a number": (
        lambda d: d["tensors"]["u"].update(initial=0.0), "tensors/u/initial"
    ),
    "a fill without a value": (
        lambda d: d["tensors"]["eps"].update(initial={"kind": "fill"}), "tensors/eps/initial/value"
    ),
    "a fill in words": (
        lambda d: d["tensors"]["eps"]["initial"].update(value="inf"), "tensors/eps/initial/value"
    ),
    "a fill that is null": (
        lambda d: d["tensors"]["eps"]["initial"].update(value=None), "tensors/eps/initial/value"
    ),
    "a fill of true in a float tensor": (
        lambda d: d["tensors"]["eps"]["initial"].update(value=True), "tensors/eps/initial/value"
    ),
    "a fill of one in a bool tensor": (
        lambda d: d["tensors"]["mask"]["initial"].update(value=1), "tensors/mask/initial/value"
    ),
    "a fill of a float in an integer tensor": (
        lambda d: d["tensors"]["big"]["initial"].update(value=1.0), "tensors/big/initial/value"
    ),
    "a fill of infinity in an integer tensor": (
        lambda d: d["tensors"]["big"]["initial"].update(value="NaN"), "tensors/big/initial/value"
    ),
    "a fill that is too large": (
        lambda d: d["tensors"]["big"]["initial"].update(value=1 << 64), "tensors/big/initial/value"
    ),
    "a range of floats": (
        lambda d: d["tensors"]["eps"].update(initial={"kind": "range", "start": 0, "step": 1}),
        "tensors/eps/initial/kind",
    ),
    "a range without a shape": (
        lambda d: d["tensors"]["ids"].update(shape=None), "tensors/ids/initial/kind"
    ),
    "a range from a float": (
        lambda d: d["tensors"]["ids"]["initial"].update(start=0.0), "tensors/ids/initial/start"
    ),
    "a range from too far": (
        lambda d: d["tensors"]["ids"]["initial"].update(start=1 << 63), "tensors/ids/initial/start"
    ),
    "a range that leads too far": (
        lambda d: d["tensors"]["ids"]["initial"].update(step=1 << 62), "tensors/ids/initial/step"
    ),
    "content of another length": (
        lambda d: d["tensors"]["few"].update(dtype="int32"), "tensors/few/initial/data"
    ),
    "content without a dtype": (
        lambda d: d["tensors"]["few"].update(dtype=None), "tensors/few/initial/kind"
    ),
    "content that is no base64": (
        lambda d: d["tensors"]["few"]["initial"].update(data="A=B="), "tensors/few/initial/data"
    ),
    "a reason that is none": (
        lambda d: d["tensors"]["of_weight"]["initial"].update(why="so"),
        "tensors/of_weight/initial/why",
    ),
    "a module's field mistyped": (
        lambda d: d["modules"]["head"].update(has_extra_state=True), "modules/head/has_extra_state"
    ),
    "hooks that are names": (
        lambda d: d["modules"][""].update(load_hooks=["torch.x"]), "modules//load_hooks/0"
    ),
    "a setting that is a float": (
        lambda d: d["modules"][""]["load_hooks"][0]["settings"].update(dim=1.5),
        "modules//load_hooks/0/settings/dim",
    ),
    "a module that is None and there": (
        lambda d: d["modules"][""].update(none_modules=["head"]), "modules//none_modules"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_by_its_place(what: str) -> None:
    edit, place = WRONG[what]
    document = json.loads(write_document(small()))
    edit(document)
    with pytest.raises(SpecError) as caught:
        read_document(json.dumps(document).encode())
    error = caught.value
    assert error.place == place
    assert "\n" not in str(error)


def test_the_first_problem_is_told_and_the_others_are_counted() -> None:
    document = json.loads(write_document(small()))
    document["tensors"]["eps"]["initial"]["value"] = []
    for name in ("u", "rope", "few"):
        document["tensors"][name]["dtype"] = "float33"
    with pytest.raises(SpecError) as caught:
        read_document(json.dumps(document).encode())
    assert caught.value.place == "tensors/eps/initial/value"
    assert str(caught.value) == (
        "tensors/eps/initial/value: it should be a valid boolean, or a valid integer, or a valid "
        "number, or 'NaN', 'Infinity' or '-Infinity', and 3 more"
    )


def test_contradictions_are_counted_too() -> None:
    document = json.loads(write_document(small()))
    for name in ("u", "rope", "few"):
        document["tensors"][name]["tied_to"] = "nothing"
    with pytest.raises(SpecError, match="'nothing' is no other tensor, and 2 more") as caught:
        read_document(json.dumps(document).encode())
    assert caught.value.place == "tensors/few/tied_to"


@pytest.mark.parametrize("version", [VERSION + 1, 10**4000 - 1], ids=["next", "far"])
def test_a_later_version_is_told_before_anything_else(version: int) -> None:
    document = {"ckptool_spec": version, "layers": []}
    with pytest.raises(SpecError) as caught:
        read_document(json.dumps(document).encode())
    assert str(caught.value) == "ckptool_spec: a spec of a later version than this ckptool reads"
    assert caught.value.hint is not None


PLAIN: Final = (
    '{"kind": "parameter", "persistent": true, "dtype": null, "shape": null, "tied_to": null, '
    '"initial": null}'
)

TWICE: Final = '{"shape": null, '


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"source": ', '"source": "x", "source": ', ("source",)),
        ('"u": {', '"u": null, "u" \n: {', None),
        ('"rope": {', f'"u": {PLAIN}, "rope": {{', ("tensors", "u")),
        ('"rope": {', f'"u": {PLAIN.replace("{", TWICE)}, "rope": {{', ("tensors", "u")),
        ('"u": {', f'"u": {PLAIN.replace("{", TWICE)}, "u": {{', ("tensors", "u")),
        ('"start": 0', '"start": 1, "start" : 0', ("tensors", "ids", "initial", "start")),
        ('"dim": 1', '"dim": 1, "dim": 1', ("modules", "", "load_hooks", 0, "settings", "dim")),
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused(
    old: str, new: str, place: tuple[str | int, ...] | None
) -> None:
    text = write_document(small())
    assert text.count(old) == 1
    with pytest.raises(SpecError) as caught:
        read_document(text.replace(old, new).encode())
    assert place is None or caught.value.place == display(place)


def test_text_that_looks_like_a_key_is_none() -> None:
    hook = LoadHook('a "b": c', {'"': '":'})
    spec = ModelSpec('x":', "module", None, {}, {"": ModuleSpec(None, (hook, hook))})
    assert read_document(write_document(spec).encode()) == spec


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}", b'{"ckptool_spec": 1', b"[" * 10_000,
        b'{"ckptool_spec": ' + b"9" * 10_000 + b"}", b'{"ckptool_spec": NaN}',
        b'{"ckptool_spec": 1e999}', b'{"ckptool_spec": 1, "source": "\\ud800"}', b"\xef\xbb\xbf",
        "{}".encode("utf-16"), b'{"ckptool_spec": {"a": ' * 150 + b"1" + b"}" * 300,
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(SpecError) as caught:
        read_document(data)
    assert "\n" not in str(caught.value)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_give_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(SpecError):
        read_document(data)


def read_or_none(data: bytes) -> ModelSpec | None:
    try:
        return read_document(data)
    except SpecError:
        return None


@given(st.data())
def test_a_document_gone_wrong_gives_a_spec_or_an_error_of_ours(data: st.DataObject) -> None:
    text = write_document(data.draw(specs() | st.just(small()))).encode()
    spec = read_or_none(data.draw(mutations(text)))
    if spec is not None:
        assert repr(read_document(write_document(spec).encode())) == repr(spec)


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(_TEXTS, children, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_value_in_any_place_gives_a_spec_or_an_error_of_ours(data: st.DataObject) -> None:
    document = json.loads(write_document(small()))
    inside: Any = document
    while True:
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = data.draw(_JSON)
    read_or_none(json.dumps(document).encode())


HALF: Final = "a\ud800"
PLAIN_TENSOR: Final = TensorSpec("parameter", True, "float32", (2,))
UNREADABLE: dict[str, tuple[ModelSpec, str]] = {
    "a tensor's name": (replace(small(), tensors={HALF: PLAIN_TENSOR}), f"tensors/{HALF}"),
    "a module's path": (
        replace(small(), tensors={}, modules={"": ModuleSpec("N"), HALF: ModuleSpec("N")}),
        f"modules/{HALF}",
    ),
    "the source": (replace(small(), source=HALF), "source"),
    "the version of torch": (replace(small(), torch_version=HALF), "torch_version"),
    "a class": (replace(small(), tensors={}, modules={"": ModuleSpec(HALF)}), "modules//type"),
    "a name for None": (
        replace(small(), tensors={}, modules={"": ModuleSpec("N", (), False, (HALF,))}), "modules/"
    ),
    "a hook": (
        replace(small(), tensors={}, modules={"": ModuleSpec("N", (LoadHook(HALF),))}),
        "modules//load_hooks",
    ),
    "a setting": (
        replace(small(), tensors={}, modules={"": ModuleSpec("N", (LoadHook("h", {"x": HALF}),))}),
        "modules//load_hooks",
    ),
    "a tensor without a module": (
        replace(small(), tensors={"no.x": PLAIN_TENSOR}), "tensors/no.x"
    ),
    "a dtype": (
        replace(small(), tensors={"x": replace(PLAIN_TENSOR, dtype="float33")}), "tensors/x/dtype"
    ),
    "a dtype of content": (
        replace(
            small(), tensors={"x": TensorSpec("buffer", True, "f", (1,), None, Content(b"x"))}
        ),
        "tensors/x/dtype",
    ),
    "a size": (
        replace(small(), tensors={"x": replace(PLAIN_TENSOR, shape=(0, 1 << 63))}),
        "tensors/x/shape",
    ),
    "too many dimensions": (
        replace(small(), tensors={"x": replace(PLAIN_TENSOR, shape=(1,) * 65)}), "tensors/x/shape"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_could_not_be_read_again_is_not_written_and_is_named(what: str) -> None:
    spec, place = UNREADABLE[what]
    with pytest.raises(SpecError) as caught:
        write_document(spec)
    assert caught.value.place == place
    assert "\n" not in str(caught.value)


def test_two_halves_that_make_one_character_are_no_text() -> None:
    """JSON would join them, and give the name to another tensor."""
    spec = replace(small(), tensors={"\ud83d\ude00": PLAIN_TENSOR, "\U0001f600": PLAIN_TENSOR})
    with pytest.raises(SpecError, match="is no text"):
        write_document(spec)
