"""Every command takes paths of this machine, `~` among them, and refuses addresses before it starts."""

import importlib

import pytest

COMMANDS = {
    "aliasfree_jax.conversion.__main__": [["PATH", "out"], ["w.pth", "PATH"]],
    "aliasfree_jax.evaluation.audit.__main__": [
        ["PATH"],
        ["--checkpoint=PATH"],
        ["--output=PATH"],
        ["--plot=PATH"],
    ],
    "aliasfree_jax.evaluation.html_report": [["PATH"], ["a.json", "--out=PATH"]],
    "experiments.__main__": [["--data=PATH"]],
    "benchmarks.__main__": [["--out=PATH"], ["--photographs=PATH"]],
}
CASES = [(module, arguments) for module, cases in COMMANDS.items() for arguments in cases]


@pytest.mark.parametrize(("module", "arguments"), CASES)
def test_an_address_is_refused(module, arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(module).main
    with pytest.raises(SystemExit) as end:
        main([argument.replace("PATH", "gs://bucket/x.json") for argument in arguments])
    assert end.value.code == 2
    assert "the path is 'gs://bucket/x.json', an address: gs:// is not supported" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        ("aliasfree_jax.conversion.__main__", ["~/w.pth", "~/out"], "HOME/w.pth"),
        ("aliasfree_jax.evaluation.audit.__main__", ["~/nets.py:f"], "HOME/nets.py"),
        ("aliasfree_jax.evaluation.audit.__main__", ["--checkpoint=~/run"], "HOME/run"),
        ("aliasfree_jax.evaluation.html_report", ["~/e.json"], "HOME/e.json"),
        ("experiments.__main__", ["--data=~/cifar"], "HOME/cifar"),
    ],
)
def test_the_home_directory_is_found(module, arguments, told, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert importlib.import_module(module).main(arguments) == 2  # there is nothing
    assert told.replace("HOME", str(tmp_path)) in capsys.readouterr().err
