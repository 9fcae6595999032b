"""The work pool: what a form or a deployment cannot set, in new pools and in those of older releases."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock

from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from hone_app.deploy.apply import FIXED, restrict_template


def configure(template: dict[str, Any], **values: Any) -> ProcessJobConfiguration:
    """What the worker makes of the template and a run's values."""
    # The client, which Prefect would start a server for, is for references to blocks.
    configuration = ProcessJobConfiguration.from_template_and_values(template, values, client=AsyncMock())
    return asyncio.run(configuration)


def test_what_a_run_executes_and_where_is_no_variable() -> None:
    template = restrict_template(ProcessWorker.get_default_base_job_template())
    assert not set(FIXED) & set(template["variables"]["properties"])
    assert template["variables"]["additionalProperties"] is False
    assert configure(template, command="id", working_dir="/etc").command is None
    assert configure(template, command="id", working_dir="/etc").working_dir is None
    assert configure(template, name="mine", labels={"a": "b"}).name == "mine"
    assert restrict_template(template) == template


def test_what_an_older_pool_had_set_stays() -> None:
    template = ProcessWorker.get_default_base_job_template()
    properties = template["variables"]["properties"]
    properties["working_dir"]["default"] = "/srv/tickets"
    properties["env"]["default"] = {"HF_HUB_OFFLINE": "1"}
    restricted = restrict_template(template)
    configured = configure(restricted)
    assert (str(configured.working_dir), configured.env) == ("/srv/tickets", {"HF_HUB_OFFLINE": "1"})
    assert configured.command is None
    assert not set(FIXED) & set(restricted["variables"]["properties"])


def test_a_pool_on_kubernetes_keeps_its_manifest() -> None:
    manifest = {
        "containers": [
            {"env": "{{ env }}", "args": "{{ command }}", "image": "{{ image }}", "volumes": ["{{ image }}"]}
        ]
    }
    properties = {"env": {"default": {"A": "1"}}, "command": {"type": "string"}, "image": {"default": "hone"}}
    template = {
        "job_configuration": {"env": "{{ env }}", "job_manifest": manifest},
        "variables": {"type": "object", "properties": properties, "required": ["command", "image"]},
    }
    restricted = restrict_template(template)
    expected = {"containers": [{"env": {"A": "1"}, "image": "{{ image }}", "volumes": ["{{ image }}"]}]}
    assert restricted["job_configuration"] == {"env": {"A": "1"}, "job_manifest": expected}
    assert restricted["variables"]["properties"] == {"image": {"default": "hone"}}
    assert restricted["variables"]["required"] == ["image"]
