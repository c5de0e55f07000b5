"""Tests of help, mistakes and paths of every command."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from aliasfree_jax.__main__ import COMMANDS, main
from aliasfree_jax.commands import program

ROOT = Path(__file__).resolve().parent.parent


def module_of(name):
    return importlib.import_module(COMMANDS.get(name, f"{name}.__main__"))


def typed(name, *arguments):
    """Runs a command of the package, or another one, and returns its exit status."""
    if name in COMMANDS:
        return main([name, *arguments])
    module = module_of(name)
    return program(module.define, module.main, module.__doc__)([*arguments])


@pytest.mark.parametrize("asked", [[], ["--help"], ["-h"]])
def test_the_package_lists_its_commands(asked, capsys):
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.endswith(".") and len(line.split()) > 5


@pytest.mark.parametrize(
    "name", [*COMMANDS, "experiments", "experiments.worker", "benchmarks", "benchmarks.page"]
)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_lists_every_flag(name, asked, capsys):
    module = importlib.import_module(name if "." in name else COMMANDS.get(name, f"{name}.__main__"))
    assert program(module.define, module.main, module.__doc__)(["x", asked]) == 0
    told = capsys.readouterr().out
    assert told.startswith(module.__doc__.strip())
    values = flags.FlagValues()
    module.define(values)
    for flag in values:
        assert f"  --{flag}" in told and values[flag].help


def test_help_tells_the_default(capsys):
    main(["prepare", "--help"])
    said = "--images_per_shard=...\n      largest number of images in a shard (default: '1024')"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convrt"], "unknown command 'convrt'. Did you mean 'convert'? Known: audit, check, convert, "),
        (["--output=x", "convert"], "unknown command '--output=x'"),
        (["convert", "a", "b", "--modle=x"], "Unknown command line flag 'modle'. Did you mean: model ?"),
        (["convert", "a", "b", "--image_size=x"], "flag --image_size=x: invalid literal for int"),
        (["convert", "a", "b", "--model"], "Missing value for flag --model"),
        (["convert", "a"], "expected two arguments, an input and an output, got ['a']. Pass a file"),
        (
            ["convert", "--key=x", "a", "b", "c"],
            "expected two arguments, an input and an output, got ['a', 'b', 'c']",
        ),
        (["prepare", "one"], "expected IMAGES and DIRECTORY"),
        (["prepare", "a", "b", "--verify"], "expected IMAGES and DIRECTORY"),
        (["prepare", "a", "b", "--images_per_shard=0"], "0 is not a positive integer"),
        (["prepare", "a", "b", "--workers=0"], "0 is not a positive integer"),
        (["prepare", "a", "b", "--resize=-1"], "-1 is not a non-negative integer"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["experiments", "benchmarks"])
def test_commands_of_flags_alone_refuse_arguments(name, capsys):
    assert typed(name, "x") == 2
    assert "unexpected argument 'x': every argument is a flag, --name=value." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (ModuleNotFoundError("no grain", name="grain"), 2, "needs grain (no grain): pip install grain\n"),
    ],
)
def test_what_an_import_raises_is_one_line(raised, status, told, monkeypatch, capsys):
    def import_module(name):
        raise raised

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert main(["convert", "a", "b"]) == status
    assert capsys.readouterr().err.endswith(told)


def test_the_program_starts():
    """Runs the program in a new process; the other tests call functions."""
    run = subprocess.run(
        [sys.executable, "-m", "aliasfree_jax", "convert", "--hlep"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: Unknown command line flag 'hlep'. Did you mean: help ?")


# All commands expand `~` in paths and refuse addresses before they start.

PATHS = {
    "convert": [["PATH", "out"], ["w.pth", "PATH"]],
    "export": [["PATH", "out.onnx"], ["run", "PATH"]],
    "prepare": [["PATH", "out"], ["in", "PATH"], ["--verify", "PATH"]],
    "audit": [["PATH"], ["--checkpoint=PATH"], ["--output=PATH"], ["--plot=PATH"]],
    "report": [["PATH"], ["a.json", "--output=PATH"]],
    "curves": [["PATH"], ["run", "--output=PATH"]],
    "experiments": [["--data=PATH"]],
    "benchmarks": [["--output=PATH"], ["--photographs=PATH"]],
}
CASES = [(name, case) for name, cases in PATHS.items() for case in cases]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_an_address_is_refused(name, arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert typed(name, *(argument.replace("PATH", "gs://bucket/x.json") for argument in arguments)) == 2
    assert "'gs://bucket/x.json', an address: gs:// is not supported" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("convert", ["~/w.pth", "~/out"], "HOME/w.pth"),
        ("export", ["~/run", "~/out.onnx"], "HOME/run"),
        ("prepare", ["~/images", "~/out"], "HOME/images"),
        ("audit", ["~/nets.py:f"], "HOME/nets.py"),
        ("audit", ["--checkpoint=~/run"], "HOME/run"),
        ("report", ["~/e.json"], "HOME/e.json"),
        ("curves", ["~/run"], "HOME/run"),
        ("experiments", ["--data=~/cifar"], "HOME/cifar"),
    ],
)
def test_the_home_directory_is_found(name, arguments, told, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed(name, *arguments) == 2  # these files do not exist
    assert told.replace("HOME", str(tmp_path)) in capsys.readouterr().err
