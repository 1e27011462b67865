"""The command line: options, mistakes, and signals."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from studio import cli
from studio.library.store import Library
from tests.fakes import write_model_folder
from tests.serving import free_port, serving


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (
        "SPACE_ID",
        *(f"STUDIO_{n}" for n in ("MODEL", "MODELS_DIR", "MEMORY", "HOST", "PORT", "DEVICE", "DATA_DIR", "AUTH")),
    ):
        monkeypatch.delenv(name, raising=False)


def test_defaults_serve_this_machine_alone():
    options = cli.parse_arguments([])
    assert (options.host, options.port, options.device, options.auth) == ("127.0.0.1", 7860, "auto", None)


def test_every_option_has_an_environment_variable(monkeypatch):
    monkeypatch.setenv("STUDIO_DATA_DIR", "/tmp/x")
    monkeypatch.setenv("STUDIO_PORT", "7999")
    monkeypatch.setenv("STUDIO_AUTH", "ann:s:e")
    options = cli.parse_arguments(["--port", "8000"])
    assert (options.data_dir, options.port, options.auth) == ("/tmp/x", 8000, ("ann", "s:e"))
    for variable in ("STUDIO_DATA_DIR", "STUDIO_PORT", "STUDIO_AUTH"):  # set to nothing is not set
        monkeypatch.setenv(variable, "")
    assert cli.parse_arguments([]) == cli.parse_arguments(["--data-dir", "outputs", "--port", "7860"])


def test_models_are_looked_for_in_several_folders(monkeypatch):
    assert cli.parse_arguments([]).models_dir == ["models"]
    monkeypatch.setenv("STUDIO_MODELS_DIR", os.pathsep.join(["x", "", "y"]))
    assert cli.parse_arguments([]).models_dir == ["x", "y"]
    assert cli.parse_arguments(["--models-dir", "p", "--models-dir", "q"]).models_dir == ["p", "q"]
    assert cli.parse_arguments(["--memory", "1.5"]).memory == 1_500_000_000
    assert cli.parse_arguments(["--dtype", "bfloat16"]).dtype == "bfloat16" and cli.parse_arguments([]).dtype == "auto"


def test_the_default_model_is_named_by_its_id_or_its_path(tmp_path):
    def ids(model: str | None) -> list[str]:
        catalog = cli.open_catalog(model, [str(tmp_path / "models")], tmp_path / "models.json")
        catalog.close()
        return [entry.id for entry in catalog.entries]

    write_model_folder(tmp_path / "models" / "other")
    write_model_folder(tmp_path / "elsewhere" / "third")
    assert ids(None) == ["model", "other"]
    assert ids("other") == ["other", "model"]
    assert ids(str(tmp_path / "elsewhere" / "third")) == ["third", "other", "model"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--memory", "0"], "number of GB above 0; it was '0'"),
        (["--dtype", "int8"], "--dtype must be one of auto, float32, float16, bfloat16; it was 'int8'"),
        (["--memory", "nan"], "number of GB above 0; it was 'nan'"),
        (["--host", "0.0.0.0"], "--auth user:password is required"),
        (["--host", "example.org"], "--auth user:password is required"),
        (["--auth", "ann"], "form user:password"),
        (["--auth", ":secret"], "form user:password"),
        (["--port", "0"], "whole number from 1 to 65535; it was '0'"),
        (["--port", "http"], "from 1 to 65535"),
    ],
)
def test_mistakes_end_with_a_sentence(arguments, says, capsys):
    with pytest.raises(SystemExit):
        cli.parse_arguments(arguments)
    assert says in capsys.readouterr().err


def test_others_may_reach_it_with_a_password_or_on_a_space(monkeypatch):
    assert cli.parse_arguments(["--host", "0.0.0.0", "--auth", "ann:secret"]).host == "0.0.0.0"
    for host in ("::1", "[::1]"):
        assert (cli.parse_arguments(["--host", host]).host, cli.parse_arguments(["--host", host]).auth) == ("::1", None)
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    assert cli.parse_arguments([]).host == "0.0.0.0"


def test_a_data_folder_that_is_none_ends_with_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        cli.main(["--data-dir", str(tmp_path / "file")])
    assert str(end.value).startswith(f"--data-dir {tmp_path / 'file'}: The library in")  # Python prints it alone


def test_the_package_is_a_program():
    command = [sys.executable, "-m", "studio", "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("usage: ")


def test_it_starts_and_ends_at_a_signal(tmp_path):
    port = free_port()
    options = ["--model", str(tmp_path), "--data-dir", str(tmp_path / "data"), "--port", str(port)]
    with serving("app.py", *options, port=port, end=signal.SIGINT):
        pass
    Library(tmp_path / "data").close()  # the folder is free, and the port
    with socket.create_server(("127.0.0.1", port)):
        pass
