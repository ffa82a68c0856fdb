"""Pickles that would run code in whatever loads them; beside it there is a real tensor."""

from __future__ import annotations

from typing import Final

from tests import builders
from tests.builders import (
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    MARK,
    NEWOBJ,
    NEWOBJ_EX,
    OBJ,
    POP,
    REDUCE,
    SETITEM,
    STACK_GLOBAL,
    TUPLE1,
    TUPLE2,
    Call,
    Global,
    Persistent,
    binunicode,
    global_,
    inst,
    short_binunicode,
    stream,
    torch_zip,
)
from tests.hostile.case import EXIT_7, VALUES, Case, Opens, beside, with_pickle

__all__ = ["CASES"]

_SYSTEM: Final = global_("posix", "system")
_COMMAND: Final = binunicode(EXIT_7)
_IMPORT: Final = "import antigravity, this"
_NO_EXTENSION: Final = 1
_SCANNERS: Final = "protectai/modelscan#338"


def _calls(module: str, name: str, *args: object) -> bytes:
    return torch_zip({"w": VALUES, "x": Call(Global(module, name), args)})


def _getattr_chain() -> bytes:
    imported = Call(Global("builtins", "__import__"), ("os",))
    system = Call(Global("builtins", "getattr"), (imported, "system"))
    return beside(builders.to_pickle(system)[2:-1], _COMMAND, TUPLE1, REDUCE)


def _nested_pickle() -> bytes:
    inner = stream(_SYSTEM, _COMMAND, TUPLE1, REDUCE)
    return _calls("pickle", "loads", inner)


CASES: Final = (
    Case(
        "reduce-system",
        "REDUCE calls posix.system beside a tensor",
        lambda: beside(_SYSTEM, _COMMAND, TUPLE1, REDUCE),
        stands_for="pytorch/pytorch#52596",
    ),
    Case(
        "reduce-exec",
        "REDUCE calls exec with source that imports modules",
        lambda: _calls("builtins", "exec", _IMPORT),
        stands_for=_SCANNERS,
    ),
    Case(
        "inst-system",
        "INST, of protocol 0, makes the call",
        lambda: beside(MARK, _COMMAND, inst("os", "system")),
        stands_for=_SCANNERS,
    ),
    Case(
        "obj-popen",
        "OBJ, of protocol 1, makes the call",
        lambda: beside(MARK, global_("subprocess", "Popen"), _COMMAND, OBJ),
        stands_for=_SCANNERS,
    ),
    Case(
        "newobj-popen",
        "NEWOBJ makes the object",
        lambda: beside(global_("subprocess", "Popen"), _COMMAND, TUPLE1, NEWOBJ),
    ),
    Case(
        "newobj-ex-popen",
        "NEWOBJ_EX makes it, with arguments by name",
        lambda: beside(
            global_("subprocess", "Popen"),
            EMPTY_TUPLE,
            EMPTY_DICT,
            binunicode("args"),
            _COMMAND,
            SETITEM,
            NEWOBJ_EX,
        ),
    ),
    Case(
        "build-setstate",
        "BUILD gives an object a state that its __setstate__ would run",
        lambda: beside(
            global_("antigravity", "Flyer"), EMPTY_TUPLE, NEWOBJ, _COMMAND, TUPLE1, BUILD
        ),
    ),
    Case(
        "build-class-swap",
        "BUILD replaces __class__ and __reduce__ of an object",
        lambda: torch_zip(
            {
                "w": VALUES,
                "x": Call(
                    Global("collections", "OrderedDict"),
                    (),
                    {"__class__": Global("this", "d"), "__reduce__": Global("os", "system")},
                ),
            }
        ),
    ),
    Case(
        "ext1-call",
        "the callee is number 1 of an extension registry",
        lambda: beside(builders.ext1(_NO_EXTENSION), _COMMAND, TUPLE1, REDUCE),
    ),
    Case(
        "ext2-call",
        "the same by EXT2",
        lambda: beside(builders.ext2(_NO_EXTENSION), _COMMAND, TUPLE1, REDUCE),
    ),
    Case(
        "ext4-call",
        "the same by EXT4, with a negative number",
        lambda: beside(builders.ext4(-_NO_EXTENSION), _COMMAND, TUPLE1, REDUCE),
    ),
    Case(
        "stack-global-dotted",
        "STACK_GLOBAL walks through attributes to what no list names",
        lambda: beside(
            short_binunicode("collections"),
            short_binunicode("OrderedDict.__init__.__globals__.get"),
            STACK_GLOBAL,
            short_binunicode("__builtins__"),
            TUPLE1,
            REDUCE,
        ),
    ),
    Case(
        "stack-global-joined",
        "STACK_GLOBAL takes its names from the memo, so that none is next to it",
        lambda: beside(
            binunicode("os"),
            builders.long_binput(1000),
            POP,
            binunicode("system"),
            builders.long_binput(1001),
            POP,
            builders.long_binget(1000),
            builders.long_binget(1001),
            STACK_GLOBAL,
            _COMMAND,
            TUPLE1,
            REDUCE,
        ),
        stands_for=_SCANNERS,
    ),
    Case(
        "getattr-chain",
        "the callee is what getattr(__import__('os'), 'system') would give",
        _getattr_chain,
        stands_for=_SCANNERS,
    ),
    Case(
        "partial-system",
        "functools.partial hides the callee among its arguments",
        lambda: _calls("functools", "partial", Global("os", "system"), EXIT_7),
        stands_for="trailofbits/fickling#210",
    ),
    Case(
        "CVE-2025-1716",
        "the call is pip.main, which installs what it is told",
        lambda: _calls("pip", "main", ["install", "no-such-package"]),
        stands_for="CVE-2025-1716 (promptfoo/modelaudit#598)",
    ),
    Case(
        "CVE-2025-10157",
        "the call is of a class deep in a package that lists name by its top alone",
        lambda: _calls("asyncio.unix_events", "_UnixSubprocessTransport._start", EXIT_7),
        stands_for="CVE-2025-10157 (asamassekou10/ship-safe#43)",
    ),
    Case(
        "collect-env-run",
        "the call is torch's own helper that starts a shell",
        lambda: _calls("torch.utils.collect_env", "run", EXIT_7),
        stands_for=_SCANNERS,
    ),
    Case(
        "allowed-subclass",
        "a tensor is rebuilt as a subclass from a module that would be imported",
        lambda: torch_zip({"w": builders.with_attributes(VALUES, {}, Global("this", "Tensor"))}),
        stands_for="pytorch/pytorch#189446",
    ),
    Case(
        "find-class-fall-through",
        "a bare pickle, as metadata are, names a class that is on no list",
        lambda: builders.to_pickle({"x": Call(Global("antigravity", "Flyer"), (), {}, new=True)}),
        Opens(()),
        stands_for="google/orbax#3014",
    ),
    Case(
        "nested-pickle",
        "pickle.loads is called with another pickle",
        _nested_pickle,
        stands_for=_SCANNERS,
    ),
    Case(
        "made-and-thrown-away",
        "the call is made, and its result taken off the stack again",
        lambda: beside(_SYSTEM, _COMMAND, TUPLE1, REDUCE, POP, builders.NONE),
        stands_for="mmaitre314/picklescan#46",
    ),
    Case(
        "call-below-the-top",
        "STOP returns the value on the top; the call stays below it",
        lambda: with_pickle(
            stream(
                _SYSTEM, _COMMAND, TUPLE1, REDUCE, EMPTY_DICT, binunicode("n"), _COMMAND, SETITEM
            )
        ),
        Opens(()),
    ),
    Case(
        "call-in-a-persistent-id",
        "a persistent id holds the call",
        lambda: torch_zip(
            {"w": VALUES, "x": Persistent(("module", Call(Global("os", "system"), (EXIT_7,))))}
        ),
    ),
    Case(
        "call-as-a-key",
        "the call is the key of a dict",
        lambda: torch_zip({"w": VALUES, Call(Global("os", "system"), (EXIT_7,)): 1}),
    ),
    Case(
        "code-as-a-storage-class",
        "the storage of another tensor is of the class os.system",
        lambda: torch_zip(
            {
                "w": VALUES,
                "x": Persistent(("storage", Global("os", "system"), "0", "cpu", 2)),
            }
        ),
    ),
    Case(
        "CVE-2025-10155",
        "a pickle of protocol 0, which has no magic number; only its content says so",
        lambda: builders.stream(MARK, builders.string(EXIT_7), inst("os", "system"), protocol=0),
        Opens(()),
        stands_for="CVE-2025-10155 (asamassekou10/ship-safe#43)",
    ),
    Case(
        "reduce-with-a-pair",
        "the callee is a plain pair that looks like a global",
        lambda: with_pickle(
            stream(
                binunicode("torch._utils"),
                binunicode("_rebuild_tensor_v2"),
                TUPLE2,
                EMPTY_TUPLE,
                REDUCE,
            )
        ),
        Opens(()),
    ),
)
