"""``sesa-lab lab``: what JupyterLab is started with. That it does start, and obeys, is in tests/reports/test_lab_browser.py."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from sesa_lab import cli_lab
from sesa_lab.errors import InputError


def command(*arguments: object, root: bool = False) -> list[str]:
    parser = ArgumentParser()
    cli_lab.add_arguments(parser)
    return cli_lab.command_of(parser.parse_args([str(each) for each in arguments]), root=root)


def test_it_opens_the_notebooks_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / cli_lab.START).touch()
    monkeypatch.chdir(tmp_path)
    start = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    assert command() == [*start, "--LabApp.default_url=/lab/tree/00_start_here.ipynb"]


def test_another_folder_port_and_user(tmp_path: Path) -> None:
    said = command(tmp_path, "--port", 9000, "--no-browser", root=True)
    assert said[3:] == [f"--ServerApp.root_dir={tmp_path}", "--ServerApp.port=9000", "--no-browser", "--allow-root"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no folder 'nowhere' here"),
        ([__file__], "no folder '.*test_cli_lab.py'"),
        ([".", "--port", 0], "--port 0; expected 1 to 65535"),
        ([".", "--port", 65_536], "--port 65536"),
    ],
)
def test_bad_input_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        command(*arguments)


def test_our_settings_go_before_others_and_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = str(cli_lab.CONFIG)
    assert cli_lab.environment({"A": "b"}) == {"A": "b", "JUPYTER_CONFIG_PATH": ours}
    assert cli_lab.environment({"JUPYTER_CONFIG_PATH": "x"})["JUPYTER_CONFIG_PATH"] == f"{ours}{os.pathsep}x"
    settings = json.loads((cli_lab.CONFIG / "labconfig" / "default_setting_overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:kernels-settings"] == {"commsOverSubshells": "disabled"}


def test_this_process_becomes_jupyterlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become: list[object] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: become.extend(arguments))
    parser = ArgumentParser()
    cli_lab.add_arguments(parser)
    cli_lab.run(parser.parse_args([str(tmp_path)]))
    assert become[0] == sys.executable and ("--allow-root" in become[1]) is (os.geteuid() == 0)
    assert become[2]["JUPYTER_CONFIG_PATH"].startswith(str(cli_lab.CONFIG))
