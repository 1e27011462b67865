import signal
import socket
import subprocess
import sys

import pytest

from studio import cli
from studio.library.store import Library
from tests.ui.conftest import ROOT, free_port, serving


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (
        "SPACE_ID",
        *(f"STUDIO_{n}" for n in ("MODEL", "HOST", "PORT", "DEVICE", "DATA_DIR", "AUTH")),
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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
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


def test_the_page_is_built_before_torch_is_imported(tmp_path):
    code = (
        "import sys, pathlib; from studio.engine.engine import Engine; from studio.server import build_app;"
        "from studio.library.store import Library; from studio.services.context import AppContext; import studio.cli;"
        f"data = pathlib.Path({str(tmp_path)!r}); library = Library(data);"
        "from studio.models.families.studio import read_capabilities; capabilities = read_capabilities(data / 'no');"
        "engine = Engine(None, library.journal, resolve=capabilities.resolve);"
        "build_app(AppContext.open(data / 'no', engine, library, capabilities)); library.close();"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_data_folder_that_is_none_ends_with_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "app.py", "--data-dir", str(tmp_path / "file")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"--data-dir {tmp_path / 'file'}: The library in")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to(tmp_path, sign):
    port = free_port()
    with serving("app.py", "--model", str(tmp_path), "--data-dir", str(tmp_path / "data"), "--port", str(port),
                 port=port, end=sign) as url:  # fmt: skip
        assert url
    Library(tmp_path / "data")  # the folder is free, and the port
    with socket.create_server(("127.0.0.1", port)):
        pass
