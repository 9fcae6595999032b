"""Which folder is the service's project, and how its names are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config.folder import list_names
from hone.errors import ConfigError
from hone_app.service.project import describe_names, select_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "tickets")


def make_project(folder: Path) -> Path:
    (folder / "conf").mkdir(parents=True)
    (folder / "deployments").mkdir()
    (folder / "deployments/prefect.yaml").write_text("deployments: []\n")
    return folder


def test_a_subfolder_and_a_symlink_are_in_the_same_project(project: Path) -> None:
    link = project.parent / "link"
    link.symlink_to(project)
    for folder in (project, project / "conf", link, link / "conf"):
        assert select_project("", None, folder) == project
        assert select_project(str(project), None, folder) == project


def test_another_folder_is_refused_unless_it_is_asked_for(project: Path, tmp_path: Path) -> None:
    # A project in a folder of the other is another project too; an empty folder is none, and not the recorded one.
    for other in (make_project(tmp_path / "other"), make_project(project / "other"), tmp_path):
        with pytest.raises(ConfigError) as refused:
            select_project(str(project), None, other)
        fix = "Run `hone up` there, or `hone up --project FOLDER` to move the service to FOLDER."
        assert str(refused.value) == f"{other}: the service belongs to another project, {project}\n  {fix}"
    assert select_project(str(project), tmp_path / "other", tmp_path) == tmp_path / "other"
    # What was moved away is not looked for.
    assert select_project("/nowhere", project / "conf/..", tmp_path) == project


def test_what_a_folder_lacks_to_be_a_project_is_said(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no deployments/prefect.yaml and no conf/\n .*--project FOLDER"):
        select_project("", None, tmp_path)
    (project / "conf").rmdir()
    with pytest.raises(ConfigError, match="not a project: there is no conf/"):
        select_project("", None, project)
    with pytest.raises(ConfigError, match="not a project: there is no conf/"):
        select_project("", project, tmp_path)


def test_configurations_are_listed_by_name(project: Path) -> None:
    assert describe_names(list_names(project), 80) == "none"
    for name in ("topics.yaml", "demo.yaml", "notes.txt"):
        (project / "conf" / name).touch()
    assert list_names(project) == ["demo", "topics"]


def test_as_many_names_are_shown_as_fit() -> None:
    names = ["banking77", "chat", "demo"]
    assert describe_names(names, 24) == "3: banking77, chat, demo"
    assert describe_names(names, 23) == "3: banking77, chat, ..."
    assert describe_names(names, 22) == "3: banking77, ..."
    assert describe_names(names, 3) == "3: ..."
