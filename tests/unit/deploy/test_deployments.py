"""deployments/: what this machine cannot run is held against schemas, and against what it refers to."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from hone.environment import DEFAULTS, Home
from hone_app.deploy.apply import restrict_template
from hone_app.deploy.names import POOL
from hone_app.service import prefect_server, webhook
from hone_app.service.origins import OwnPagesOnly
from hone_app.service.parts import Settings, build_mlflow

ROOT = Path(__file__).parents[3]
DEPLOYMENTS = ROOT / "deployments"
NAMES = ["finetune", "sweep", "retrain-weekly", "promote", "rollback", "watch-registry", "monitor", "batch-predict"]


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOYMENTS / name).read_text())


async def unreachable(*_: Any) -> None:
    raise AssertionError("reached")


class TestPrefect:
    @pytest.fixture
    def entries(self) -> list[dict[str, Any]]:
        """The deployments, as Prefect's own model of the file has them."""
        from prefect.cli.deploy._models import PrefectYamlModel

        model = PrefectYamlModel.model_validate(read_yaml("prefect.yaml"))
        return [entry.model_dump(exclude_unset=True) for entry in model.deployments]

    def test_each_is_named_described_tagged_and_for_our_workers(self, entries: list[dict[str, Any]]) -> None:
        assert [entry["name"] for entry in entries] == NAMES
        for entry in entries:
            assert len(entry["description"]) > 20
            assert entry["tags"][0] == "hone"
            assert entry["work_pool"]["name"] == POOL

    def test_entrypoints_are_modules(self, entries: list[dict[str, Any]]) -> None:
        """A path would put flows/ on sys.path."""
        for entry in entries:
            assert re.fullmatch(r"flows\.(\w+)\.\1", entry["entrypoint"])
            assert ":" not in entry["entrypoint"]

    def test_schedules_have_slugs(self, entries: list[dict[str, Any]]) -> None:
        schedules = {entry["name"]: entry["schedules"] for entry in entries if entry.get("schedules")}
        assert set(schedules) == {"retrain-weekly", "watch-registry", "monitor"}
        for found in schedules.values():
            assert all(schedule["slug"] for schedule in found)
            # A key `active` would undo, each time the file is applied, what a person set in the UI.
            assert not any("active" in schedule for schedule in found)


class TestCompose:
    @pytest.fixture
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = read_yaml("compose.yaml")["services"]
        return found

    def test_the_parts_wait_for_each_other_and_say_that_they_are_well(self, services: dict[str, Any]) -> None:
        assert set(services) == {"postgresql", "prefect", "mlflow", "worker", "webhook"}
        for service in services.values():
            for needed, how in service.get("depends_on", {}).items():
                assert how == {"condition": "service_healthy"}
                assert services[needed]["healthcheck"]["test"][0] == "CMD"

    def test_only_loopback_is_open_and_nothing_without_a_password(self, services: dict[str, Any]) -> None:
        ports = [port for service in services.values() for port in service.get("ports", [])]
        assert len(ports) == 2
        assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)
        assert "PREFECT_SERVER_API_AUTH_STRING" in services["prefect"]["environment"]
        assert "--app-name=basic-auth" in services["mlflow"]["command"]

    def test_the_worker_has_the_gpu(self, services: dict[str, Any]) -> None:
        (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}

    def test_every_variable_is_in_the_example_and_no_other(self) -> None:
        used = re.findall(r"\$\{(\w+)(:\?|:-[^}]*)\}", (DEPLOYMENTS / "compose.yaml").read_text())
        lines = (DEPLOYMENTS / "compose.env.example").read_text().splitlines()
        example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        assert set(example) == {name for name, _ in used}
        # Passwords have no value that someone could forget to change; without one nothing starts.
        optional = {"HONE_NOTIFY_URL"}
        required = {name for name, how in used if how == ":?"}
        assert {name for name, value in example.items() if not value} == required | optional

    def test_every_file_and_volume_is_there(self, services: dict[str, Any]) -> None:
        volumes = read_yaml("compose.yaml")["volumes"]
        for service in services.values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert source in volumes if source[0] != "." else (DEPLOYMENTS / source).exists(), volume
            if "build" in service:
                assert (DEPLOYMENTS / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        ini = services["mlflow"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"].removeprefix("/opt/hone/")
        assert (ROOT / ini).is_file()

    def test_no_service_of_ours_has_capabilities(self, services: dict[str, Any]) -> None:
        for name in ("prefect", "mlflow", "worker", "webhook"):
            assert (services[name]["cap_drop"], services[name]["security_opt"]) == (["ALL"], ["no-new-privileges:true"])

    def test_images_can_be_named_by_digest(self, services: dict[str, Any]) -> None:
        example = (DEPLOYMENTS / "compose.env.example").read_text()
        for variable, image in re.findall(
            r"\$\{(HONE_\w+_IMAGE):-([^}]+)\}", (DEPLOYMENTS / "compose.yaml").read_text()
        ):
            assert f"{variable}={image}\n" in example
        dockerfile = (DEPLOYMENTS / "Dockerfile").read_text()
        assert "FROM ${PYTHON_IMAGE}\n" in dockerfile
        default = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", dockerfile, re.MULTILINE)
        assert [f"${{HONE_PYTHON_IMAGE:-{image}}}" for image in default] == [
            services["worker"]["build"]["args"]["PYTHON_IMAGE"]
        ]

    def test_the_databases_that_are_used_are_made(self, services: dict[str, Any]) -> None:
        made = re.findall(r"create database (\w+);", (DEPLOYMENTS / "postgresql" / "databases.sql").read_text())
        urls = [value for s in services.values() for value in s["environment"].values() if "@postgresql/" in value]
        assert [url.rsplit("/", 1)[1] for url in urls] == made
        for url in urls:
            assert "hone:${HONE_POSTGRESQL_PASSWORD:?}@postgresql" in url

    def test_mlflow_posts_to_the_webhook(self, services: dict[str, Any], tmp_path: Path) -> None:
        given = webhook.build_parser().parse_args(services["webhook"]["command"][3:])
        assert services["webhook"]["command"][:3] == ["python", "-m", "hone_app.service.webhook"]
        assert (given.host, given.url) == ("0.0.0.0", f"http://webhook:{given.port}")
        assert f":{given.port}/health" in services["webhook"]["healthcheck"]["test"][-1]
        # MLflow's server may post there, as the one of `hone up` may.
        allowed = {name for name in services["mlflow"]["environment"] if name.startswith("MLFLOW_WEBHOOK_")}
        assert allowed == {name for name in build_mlflow(Home(tmp_path), Settings()).environment if "_WEBHOOK_" in name}

    def test_prefects_server_is_the_one_that_refuses_other_pages(self, services: dict[str, Any]) -> None:
        assert services["prefect"]["command"][:3] == ["python", "-m", "hone_app.service.prefect_server"]
        assert prefect_server.build_parser().parse_args(services["prefect"]["command"][3:]).port == 4200
        environment = services["prefect"]["environment"]
        clients = {services[name]["environment"]["PREFECT_API_URL"] for name in ("worker", "webhook")}
        guard = OwnPagesOnly(unreachable, environment["HONE_PREFECT_HOSTS"].split(","))
        for url in clients:
            header = (b"host", urlsplit(url).netloc.encode())
            assert guard.find_reason({"headers": [header]}) == ""

    @pytest.mark.slow
    def test_the_programs_know_the_options(self, services: dict[str, Any]) -> None:
        import mlflow.cli
        from click.testing import CliRunner

        given = {word.split("=")[0] for word in services["mlflow"]["command"] if word.startswith("--")}
        shown = CliRunner().invoke(mlflow.cli.server, ["--help"]).output
        assert given and all(option in shown for option in given)


class TestDockerfile:
    @pytest.fixture
    def lines(self) -> list[str]:
        text = (DEPLOYMENTS / "Dockerfile").read_text().replace("\\\n", " ")
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    def test_what_is_copied_is_there(self, lines: list[str]) -> None:
        copied = [source for line in lines if line.startswith("COPY ") for source in shlex.split(line)[1:-1]]
        assert {"src", "tasks", "flows", "conf", "deployments", "pyproject.toml"} <= set(copied)
        assert all((ROOT / source).exists() for source in copied)

    def test_extras_exist(self, lines: list[str]) -> None:
        (install,) = (line for line in lines if ".ci/install.py " in line and line.startswith("RUN "))
        extras = install.partition(".ci/install.py ")[2].split()
        assert extras
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(extras) <= set(known)

    def test_it_is_not_root_and_sends_no_telemetry(self, lines: list[str]) -> None:
        assert [line for line in lines if line.startswith("USER ")] == ["USER hone"]
        (environment,) = (line for line in lines if line.startswith("ENV "))
        given = dict(word.split("=", 1) for word in shlex.split(environment)[1:])
        assert DEFAULTS.items() <= given.items()

    def test_files_are_private_in_every_process(self, lines: list[str], tmp_path: Path) -> None:
        (entry,) = (json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT "))
        for umask, mode in (("", "600"), ("007", "660")):
            command = [*entry, "sh", "-c", "rm -f new && : > new && stat --format %a new"]
            answer = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "HONE_UMASK": umask}
            )
            assert answer.stdout == f"{mode}\n", answer.stderr


class TestKubernetes:
    @pytest.fixture
    def template(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((DEPLOYMENTS / "kubernetes" / "base-job-template.json").read_text())
        return found

    def test_prefect_takes_it_and_knows_every_key(self, template: dict[str, Any]) -> None:
        import prefect.server.api
        from prefect.server.schemas.actions import WorkPoolCreate

        made = WorkPoolCreate(name=POOL, type="kubernetes", base_job_template=template)
        assert made.base_job_template == template
        views = Path(prefect.server.api.__file__).parent / "collections_data" / "views"
        shipped = json.loads((views / "aggregate-worker-metadata.json").read_text())
        own = shipped["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
        assert set(template["job_configuration"]) <= set(own["job_configuration"])
        undeclared = template | {"variables": {"type": "object", "properties": {"name": {}}}}
        with pytest.raises(ValueError, match="undeclared"):
            WorkPoolCreate(name=POOL, type="kubernetes", base_job_template=undeclared)

    def test_defaults_fit_their_types(self, template: dict[str, Any]) -> None:
        from jsonschema import Draft202012Validator

        schema = template["variables"]
        Draft202012Validator.check_schema(schema)
        defaults = {n: value["default"] for n, value in schema["properties"].items() if "default" in value}
        Draft202012Validator(schema).validate(defaults)
        assert list(Draft202012Validator(schema).iter_errors({"gpus": -1}))

    def test_a_job_comes_out_whole(self, template: dict[str, Any]) -> None:
        from prefect.utilities.templating import apply_values

        properties = template["variables"]["properties"]
        defaults = {name: value["default"] for name, value in properties.items() if "default" in value}
        job = apply_values(template["job_configuration"], defaults)["job_manifest"]
        assert "{{" not in json.dumps(job)
        assert (job["apiVersion"], job["kind"], job["spec"]["backoffLimit"]) == ("batch/v1", "Job", 0)
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        # The same user and folder as the image's.
        dockerfile = (DEPLOYMENTS / "Dockerfile").read_text()
        assert f"--uid {pod['securityContext']['runAsUser']}" in dockerfile
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert f"HONE_HOME={environment['HONE_HOME']}" in dockerfile
        assert f"WORKDIR {container['workingDir']}" in dockerfile

    def test_a_run_sets_neither_command_nor_environment(self, template: dict[str, Any]) -> None:
        assert restrict_template(template) == template
        assert "args" not in template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]

    def test_a_job_has_no_more_rights_than_it_needs(self, template: dict[str, Any]) -> None:
        """What Kubernetes' standard `restricted` asks for, no token of the cluster, and no writing to the image."""
        pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        # Written to: artifacts, scratch files, caches in the user's home, and what loaders share.
        writable = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert writable == {"/var/lib/hone", "/tmp", "/home/hone", "/dev/shm"}
        assert "useradd --uid 10001 --create-home hone" in (DEPLOYMENTS / "Dockerfile").read_text()


def test_every_task_run_has_a_name_that_says_what_it_does() -> None:
    """By Prefect's default it would be the task's name with three random characters."""
    from prefect import Task

    import tasks

    modules = [importlib.import_module(f"tasks.{found.name}") for found in pkgutil.iter_modules(tasks.__path__)]
    found = {
        task.name: task.task_run_name for module in modules for task in vars(module).values() if isinstance(task, Task)
    }
    assert len(found) > 10
    assert not [name for name, run_name in found.items() if not run_name]
