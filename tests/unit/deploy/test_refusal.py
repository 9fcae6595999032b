"""The reason in what `prefect deploy` prints; the outputs are of Prefect 3.8, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.errors import ConfigError
from hone_app.deploy.apply import read_names
from hone_app.deploy.notifications import describe_url
from hone_app.deploy.refusal import MAX_CHARACTERS, describe_refusal


def panel(name: str) -> str:
    return f"╭{'─' * 78}╮\n│ {f'Deploying {name}':76} │\n╰{'─' * 78}╯\n"


CREATED = (
    panel("finetune")
    + panel("retrain-weekly")
    + "Traceback (most recent call last):\n  ...\nprefect.deployments.runner.DeploymentApplyError: Error while applying"
    " deployment: Client error '422 Unprocessable Entity' for url 'http://127.0.0.1:4200/api/deployments/' - Response:"
    " {'exception_message': 'Invalid request received.', 'exception_detail': [{'type': 'value_error', 'msg': \"Value"
    " error, Validation failed for field 'config'. Failure reason: 'demo' is not one of ['other']\", 'input': "
    f"{{'name': 'retrain-weekly', 'schema': '{'x' * 50_000}'}}}}]}}\n"
)
UPDATED = (
    panel("retrain-weekly")
    + "prefect.exceptions.PrefectHTTPStatusError: Client error '409 Conflict'\nResponse: {'detail': \"Error updating"
    " deployment: Validation failed for field 'config'. Failure reason: 'demo' is not one of ['other']\"}\n"
)
CRON = panel("monitor") + (
    '1 validation error for CronSchedule\ncron\n  Value error, Invalid cron string: "0 5 * *" \n'
    "    For further information visit https://errors.pydantic.dev/2.14/v/value_error\n"
)
FIELDS = (
    "Invalid fields in deployments:\n\n  • monitor: schedules\n\nFor valid deployment fields and examples, go to: \n"
    "https://docs.prefect.io\n\nSkipping deployment configuration due to validation errors.\n"
    "An entrypoint must be provided:\n\n        prefect deploy path/to/file.py:flow_function\n"
)
MODULE = (
    panel("monitor") + "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'flows.x'\n"
)
PARAMETER = "Validation failed for field 'config'. 'demo' is not one of ['other']"


@pytest.mark.parametrize(
    ("output", "refusal"),
    [
        (CREATED, ("retrain-weekly", PARAMETER)),
        (UPDATED, ("retrain-weekly", PARAMETER)),
        (CRON, ("monitor", '1 validation error for CronSchedule cron Invalid cron string: "0 5 * *"')),
        (FIELDS, ("", "Invalid fields in deployments: • monitor: schedules")),
        (MODULE, ("monitor", "ModuleNotFoundError: No module named 'flows.x'")),
        ("", ("", "")),
    ],
)
def test_the_reason_is_one_line(output: str, refusal: tuple[str, str]) -> None:
    assert describe_refusal(output) == refusal


def test_a_long_reason_is_cut() -> None:
    assert describe_refusal("x" * 50_000) == ("", "x" * MAX_CHARACTERS + "...")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("deployments: [", "prefect.yaml: is not YAML: .* line 1"),
        ("name: hone\n", "is not a list `deployments`"),
        ("", "is not a list `deployments`"),
        ("deployments: [{entrypoint: flows.x.x}]", "is not a list `deployments` in which each has a `name`"),
    ],
)
def test_a_file_without_deployments_is_refused(text: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_names(file)
    file.write_text(text)
    with pytest.raises(ConfigError, match=what):
        read_names(file)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://..."),
        ("tgram://123456789:secret/12315544", "tgram://..."),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiaj", "https://hooks.slack.com"),
        ("json://kim:secret@hone.example:8080/hook?token=secret", "json://hone.example:8080"),
        ("mailtos://kim:se@cret@mail.example", "mailtos://mail.example"),
        ("json://kim:se/cret@hone.example", "json://..."),
        ("json://kim:se?cret@hone.example", "json://..."),
    ],
)
def test_no_secret_of_a_url_is_shown(url: str, shown: str) -> None:
    assert describe_url(url) == shown
