"""What the package promises to those who import it, and what it never loads or runs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ckptool
from ckptool import errors
from ckptool.errors import FileKind
from tests import builders
from tests.builders import torch_zip
from tests.running import SAMPLES, run, run_process

ROOT = Path(__file__).parent.parent

# The public API --------------------------------------------------------------------------------


def test_all_that_is_promised_is_there() -> None:
    for name in ckptool.__all__:
        assert getattr(ckptool, name).__name__ == name
    assert dir(ckptool) == ckptool.__all__ == sorted(ckptool.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        ckptool.nothing  # noqa: B018


def test_the_promise_is_these_names() -> None:
    assert ckptool.__all__ == [
        "AbsentTensor", "Alignment", "AmbiguousRootError", "ArchiveError", "Changed", "Check",
        "Checkpoint", "CkptoolError", "Classification", "ClassifiedEntry", "Contents",
        "CutShortError", "Diff", "EditError", "Entry", "EntryConflictError", "EntryNotFoundError",
        "Figures", "FileKind", "Finding", "InputError", "LeafDiff", "Left", "LimitExceededError",
        "Limits", "MalformedCheckpointError", "Model", "ModelMatch", "ModelSpec", "ModuleSpec",
        "NotACheckpointError", "OutputError", "Overview", "PickleStreamError", "Plan", "Removed",
        "Scan", "ScanFinding", "ScannedFile", "ScannedPickle", "SharedStorageError", "Side",
        "SpecError", "StateDict", "StorageRef", "StrictLoad", "TensorDiff", "TensorError",
        "TensorRef", "TensorSpec", "UnsupportedFormatError", "Values", "Written", "check",
        "classify", "diff", "hash_tensor", "list_contents", "load_model_spec", "open_checkpoint",
        "overview", "plan_reset_buffers", "plan_strip", "read_bytes", "read_elements", "scan",
        "write_checkpoint",
    ]  # fmt: skip


def test_every_error_is_public_and_has_its_place_in_the_tree() -> None:
    for name in errors.__all__:
        if name in ("about", "FileKind"):
            continue
        error = getattr(errors, name)
        assert issubclass(error, ckptool.CkptoolError)
        assert name in ckptool.__all__
        assert name in (errors.__doc__ or "")


def test_the_kind_of_an_error_is_its_name_in_kebab_case() -> None:
    kinds = {
        errors.NotACheckpointError(FileKind.TEXT, "x"): "not-a-checkpoint",
        errors.ArchiveError("x"): "archive",
        errors.EntryNotFoundError("x"): "entry-not-found",
        errors.LimitExceededError("x", allowed=1, actual=2): "limit-exceeded",
        errors.PickleStreamError("x", offset=0): "pickle-stream",
        errors.InputError("x"): "input",
        errors.CutShortError("x"): "cut-short",
    }
    assert all(error.kind == kind for error, kind in kinds.items())


def test_the_library_reads_a_checkpoint_in_a_few_lines() -> None:
    with ckptool.open_checkpoint(SAMPLES / "whole_module.pt") as checkpoint:
        found = ckptool.list_contents(checkpoint, patterns=["1.*"])
        roles = {one.name: one.role for one in found.entries}
        counter = next(one for one in found.entries if one.name == "1.num_batches_tracked")
        assert counter.entry.tensor is not None
        (chunk,) = ckptool.read_elements(counter.entry.tensor)
    assert roles == {
        "1.weight": "parameter",
        "1.bias": "parameter",
        "1.running_mean": "buffer",
        "1.running_var": "buffer",
        "1.num_batches_tracked": "buffer",
    }
    assert chunk.tolist() == [3]


# What is loaded --------------------------------------------------------------------------------


def modules_after(code: str, *arguments: object) -> set[str]:
    ended = f"import sys\ntry:\n  {code}\nexcept SystemExit: pass\n"
    script = f"{ended}import json; print(json.dumps(list(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_importing_ckptool_loads_nothing_heavy() -> None:
    assert not modules_after("import ckptool") & {"torch", "numpy", "rich", "typer", "ml_dtypes"}


SPEC = SAMPLES / "specs" / "my_model.json"
RUN = "from ckptool.cli import main; main()"


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (("list", SAMPLES / "my_model.pt"), {"torch", "numpy", "rich", "ml_dtypes", "tarfile"}),
        (("list", SAMPLES / "my_model.pt", "--json"), {"torch", "numpy", "rich"}),
        (("list", SAMPLES / "my_model.pt", "--sha256"), {"torch", "numpy", "rich"}),
        (("inspect", SAMPLES / "my_model.pt"), {"torch", "numpy"}),
        (("show", SAMPLES / "my_model.pt", "weight"), {"torch"}),
        (("check", SAMPLES / "my_model.pt"), {"torch"}),
        (("scan", SAMPLES / "legacy.pt"), {"torch", "numpy", "tarfile"}),
        (("scan", SAMPLES / "my_model.pt", "--sarif"), {"torch", "numpy", "rich", "pickle"}),
        (("list", SAMPLES / "my_model.pt", "--model", SPEC), {"torch", "numpy", "rich"}),
        (("inspect", SAMPLES / "my_model.pt", "--model", SPEC), {"torch", "numpy"}),
        (("check", SAMPLES / "my_model.pt", "--model", SPEC), {"torch"}),
        (("spec", SAMPLES / "whole_module.pt"), {"torch", "numpy", "rich"}),
        (("diff", SAMPLES / "legacy.pt", SAMPLES / "lookup_table.pt"), {"torch", "numpy"}),
        (("diff", SAMPLES / "model.safetensors", SAMPLES / "drifted.pt"), {"torch"}),
        (("diff", SAMPLES / "model.safetensors", SAMPLES / "drifted.pt", "--json"), {"rich"}),
        (("strip", SAMPLES / "training.ckpt", "--training", "--dry-run"), {"torch", "numpy"}),
        (("strip", SAMPLES / "my_model.pt", "--buffers", "--dry-run", "--model", SPEC), {"torch"}),
        (("reset-buffers", SAMPLES / "my_model.pt", "--dry-run", "--model", SPEC), {"torch"}),
        (("reset-buffers", SAMPLES / "drifted.pt", "--dry-run", "--json"), {"torch", "rich"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_loads_what_it_needs(arguments: tuple[object, ...], unneeded: set[str]) -> None:
    assert not modules_after(RUN, *arguments) & unneeded


def test_everything_works_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    broken = tmp_path / "torch"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('no torch here')")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for name in ("whole_module.pt", "training.ckpt", "legacy.pt", "model.safetensors"):
        for reading in ("inspect", "list"):
            done = run_process(reading, SAMPLES / name, environment=environment)
            assert (done.returncode, done.stdout) == (0, run(reading, SAMPLES / name).out)
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("show", SAMPLES / "my_model.pt", "weight"),
        ("check", SAMPLES / "my_model.pt", "--model", SPEC),
        ("check", SAMPLES / "whole_module.pt", "--model", SAMPLES / "whole_module.pt"),
        ("spec", SAMPLES / "whole_module.pt"),
        ("scan", SAMPLES / "whole_module.pt"),
        ("diff", SAMPLES / "legacy.pt", SAMPLES / "lookup_table.pt"),
        ("diff", SAMPLES / "model.safetensors", SAMPLES / "drifted.pt", "--role", "tensor"),
        ("strip", SAMPLES / "training.ckpt", "--training", "-o", tmp_path / "stripped.pt"),
        ("reset-buffers", SAMPLES / "my_model.pt", "--model", SPEC, "-o", tmp_path / "reset.pt"),
    )
    for command in commands:
        assert run_process(*command, environment=environment).returncode == 0


# What is never run -----------------------------------------------------------------------------

COMMANDS = (
    ("inspect",), ("inspect", "--json"), ("inspect", "--tree", "--all"),
    ("list", "--sha256"), ("list", "--json"), ("show", "*"), ("check",), ("check", "--json"),
    ("scan",), ("scan", "--json"), ("scan", "--sarif"),
    ("inspect", "--model", SPEC), ("check", "--model", SPEC),
    ("diff", SAMPLES / "my_model.pt"), ("diff", SAMPLES / "my_model.pt", "--json", "--all"),
)  # fmt: skip


def made(kind: str, tree: dict[str, object]) -> bytes:
    match kind:
        case "zip":
            return torch_zip(tree)
        case "legacy":
            return builders.legacy(tree)
        case "pickle":
            # Its tensors would have no storages.
            return builders.to_pickle({"canary": tree["canary"]})
        case "package":
            return builders.torch_package({"model.pkl": tree}, sources={"x.py": "raise SystemExit"})
        case _:
            return builders.torchscript(
                builders.script_module("Net", {"canary": tree}), b"raise SystemExit\n"
            )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command)))
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "package", "torchscript"])
def test_the_canary_is_read_and_not_run(
    kind: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    alarm = tmp_path / "the-canary-was-run"
    path = tmp_path / "canary.pt"
    path.write_bytes(made(kind, builders.canary(str(alarm))))
    first, *rest = command
    result = run(first, path, *rest)
    assert (result.code in (0, 1), alarm.exists()) == (True, False)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "package", "torchscript"])
def test_the_canary_is_no_model_and_not_run_as_one(kind: str, tmp_path: Path) -> None:
    alarm = tmp_path / "the-canary-was-run"
    path = tmp_path / "canary.pt"
    path.write_bytes(made(kind, builders.canary(str(alarm))))
    result = run("check", SAMPLES / "my_model.pt", "--model", path)
    assert (result.code in (1, 2), alarm.exists()) == (True, False)


def test_the_canary_of_the_tests_would_be_noticed(tmp_path: Path) -> None:
    import pickle

    alarm = tmp_path / "the-canary-was-run"
    call = builders.canary(str(alarm))["canary"]
    pickle.loads(builders.to_pickle(call)).close()
    assert alarm.exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command)))
def test_the_sample_canary_is_not_run(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *rest = command
    assert run(first, SAMPLES / "canary.pt", *rest).code in (0, 1)
    assert list(tmp_path.iterdir()) == []


FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "import_module", "find_class", "load_module",
    "exec_module", "Unpickler", "loads_module", "run_path", "run_module",
}  # fmt: skip


# It imports the user's own code, which is named on the command line.
USER_CODE = ROOT / "ckptool" / "spec" / "live" / "user_code.py"
MODULES = sorted(set((ROOT / "ckptool").rglob("*.py")) - {USER_CODE})


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_module_can_run_what_a_file_names(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                imported = {alias.name.partition(".")[0] for alias in names}
                assert not imported & {"pickle", "marshal", "shelve", "runpy", "importlib"}
            case ast.ImportFrom(module=str() as module):
                allowed = module == "importlib.metadata"
                assert allowed or module.partition(".")[0] not in {"pickle", "importlib", "runpy"}
            case ast.Call(func=ast.Name(id=name)):
                assert name not in FORBIDDEN
            case ast.Call(func=ast.Attribute(attr=attribute)):
                is_regex = attribute == "compile" and path.stem != "app"
                assert is_regex or attribute not in FORBIDDEN


# The project -----------------------------------------------------------------------------------


def test_every_dependency_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    lines = text.splitlines()
    for requirement in project["dependencies"]:
        at = next(index for index, line in enumerate(lines) if f'"{requirement}"' in line)
        assert lines[at - 1].strip().startswith("#"), requirement


def test_the_top_level_holds_the_project_and_nothing_else() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a clone")
    assert {line.partition("/")[0] for line in listed.stdout.splitlines()} == {
        ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile",
        "README.md", "ckptool", "pyproject.toml", "sample_checkpoints", "tests",
    }  # fmt: skip
