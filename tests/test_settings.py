"""Settings: their sources, and that a bad one stops the start."""

from __future__ import annotations

import copy
import json
import logging
import pprint
import traceback
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin import BudgetSettings, BudgetSettingsError
from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.postgres.address import address_from as postgres_address
from litellm_budget_plugin.stores.redis.address import parse_address as redis_address


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_DEFAULT_LIMIT", "2.50")
    monkeypatch.setenv("LITELLM_BUDGET_DEFAULT_WINDOW", "monthly")
    monkeypatch.setenv("LITELLM_BUDGET_MODE", "shadow")
    settings = BudgetSettings()
    assert (settings.default_limit, settings.mode) == (Decimal("2.50"), "shadow")
    assert settings.read_policy().defaults == (Default("user", "28d", 2_500_000_000),)


def test_a_dotenv_file_is_read_and_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("LITELLM_BUDGET_PROJECT=from-file\nLITELLM_BUDGET_DEFAULT_USER=somebody\nOTHER=1\n")
    monkeypatch.setenv("LITELLM_BUDGET_PROJECT", "from-environment")
    settings = BudgetSettings()
    assert (settings.project, settings.default_user) == ("from-environment", "somebody")


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_PROJECT", "from-environment")
    assert BudgetSettings(project="from-argument").project == "from-argument"


def test_cheaper_models_are_a_json_object_or_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_FALLBACK_MODELS", '{"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "gpt-4.1-nano"}')
    assert BudgetSettings().fallback_models == {"gpt-4o": "gpt-4o-mini", "gpt-4o-mini": "gpt-4.1-nano"}
    assert BudgetSettings(fallback_models={"a": "b"}).fallback_models == {"a": "b"}


def test_the_project_limit_is_a_second_default() -> None:
    settings = BudgetSettings(default_limit=1, project_limit=100, project_window="month", timezone="Europe/Berlin")
    assert settings.read_policy().defaults == (
        Default("user", "none", 1_000_000_000),
        Default("project", "month@Europe/Berlin", 100_000_000_000),
    )


def test_without_a_limit_spend_is_recorded_only() -> None:
    assert BudgetSettings().read_policy().defaults == (Default("user", "none", None),)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("default_limit", "-1", "must not be negative"),
        ("default_limit", "nan", "finite"),
        ("default_limit", "inf", "finite"),
        ("default_limit", "1e12", "at most"),
        ("default_limit", "five", "valid decimal"),
        ("project_limit", "-0.01", "must not be negative"),
        ("default_window", "dialy", "unknown window"),
        ("project_window", "0d", "unknown window"),
        ("timezone", "Mars/Olympus", "time zone"),
        ("mode", "on", "'enforce', 'shadow' or 'off'"),
        ("client_type", "remote", "'local', 'hosted' or 'client'"),
        ("on_store_error", "ignore", "'reject' or 'allow'"),
        ("on_unknown_price", "maybe", "'reject' or 'allow'"),
        ("on_missing_user", "guess", "'allow' or 'reject'"),
        ("default_user", "x" * 300, "256"),
        ("project", "tab\there", "printable"),
        ("user_from", "user,header", "context, metadata, user, proxy, default"),
        ("user_from", "user,user", "at most once"),
        ("output_allowance", "0", "greater than or equal to 1"),
        ("cap_output", "perhaps", "valid boolean"),
        ("min_output", "0", "greater than or equal to 1"),
        ("fallback_models", "gpt-4o", "JSON object from model to cheaper model"),
        ("fallback_models", '["gpt-4o"]', "JSON object from model to cheaper model"),
        ("fallback_models", "null", "JSON object from model to cheaper model"),
        ("fallback_models", '{"gpt-4o": 4}', "valid string"),
        ("fallback_models", '{"gpt-4o": " "}', "must not be empty"),
        ("fallback_models", '{"a": "a"}', "lead back to itself: a -> a"),
        ("fallback_models", '{"a": "b", "b": "c", "c": "b"}', "lead back to itself: a -> b -> c -> b"),
        ("hold_ttl", "0", "greater than or equal to 1"),
        ("store_timeout", "-1", "greater than 0"),
        ("retention", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_value_stops_the_start_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    variable = f"LITELLM_BUDGET_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(BudgetSettingsError) as caught:
        BudgetSettings()
    assert variable in str(caught.value)
    assert says in str(caught.value)


def test_two_ways_to_name_the_store_exclude_each_other() -> None:
    with pytest.raises(BudgetSettingsError, match="exclude each other"):
        BudgetSettings(store_url="memory://", client_type="hosted")


@pytest.mark.parametrize(
    "misspelt", ["LITELLM_BUDGET_DEFAULT_LIMT", "LITELLM_BUDGET_DEFALT_WINDOW", "litellm_budget_mod"]
)
def test_a_misspelt_setting_stops_the_start_and_names_the_right_one(
    monkeypatch: pytest.MonkeyPatch, misspelt: str
) -> None:
    monkeypatch.setenv(misspelt, "5")
    with pytest.raises(BudgetSettingsError, match="did you mean LITELLM_BUDGET_"):
        BudgetSettings()


def test_a_misspelt_setting_in_a_dotenv_file_stops_the_start_too() -> None:
    Path(".env").write_text("LITELLM_BUDGET_DEFAULT_LIMTI=5\n")
    with pytest.raises(BudgetSettingsError, match="DEFAULT_LIMTI"):
        BudgetSettings()


def test_a_misspelt_argument_is_an_error() -> None:
    with pytest.raises(BudgetSettingsError, match="default_limt"):
        BudgetSettings(default_limt=5)


def test_an_unknown_setting_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_SOMETHING_ELSE_ENTIRELY", "1")
    with caplog.at_level(logging.WARNING):
        BudgetSettings()
    assert "SOMETHING_ELSE_ENTIRELY" in caplog.text


@pytest.mark.parametrize("name", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR"])
def test_what_kubernetes_injects_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv(f"LITELLM_BUDGET_{name}", "10.0.0.1")
    BudgetSettings()
    assert not caplog.records


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = BudgetSettings()
    with pytest.raises(Exception, match="frozen"):
        settings.mode = "off"


def test_an_endpoint_is_one_url_with_all_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_API_KEY", "lbk_s/cret")
    monkeypatch.setenv("LITELLM_BUDGET_HEADERS", '{"X-Team": "a&b"}')
    with_url = BudgetSettings(store_url="https://user:old@host/prefix?connections=3")
    assert with_url.url == "https://:lbk_s%2Fcret@host/prefix?connections=3&header=X-Team%3Aa%26b"
    assert BudgetSettings(client_type="hosted").url == "https://:lbk_s%2Fcret@api.litellm.ai?header=X-Team%3Aa%26b"
    assert BudgetSettings(client_type="client", api_base="http://own:8321").url.startswith(
        "http://:lbk_s%2Fcret@own:8321?"
    )
    shown = repr(with_url) + str(with_url) + str(with_url.model_dump())
    assert "s/cret" not in shown and "a&b" not in shown


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"api_key": "secret"}, "are for an endpoint"),
        ({"headers": {"X": "secret"}, "store_url": "redis://host"}, "are for an endpoint"),
        ({"headers": "secret"}, "HEADERS: it must be a JSON object"),
        ({"headers": '{"X": ["secret"]}', "client_type": "hosted"}, "HEADERS"),
        ({"api_base": "secret.example"}, "API_BASE: it must be the URL"),
        ({"api_base": "https://:secret@host"}, "API_BASE needs LITELLM_BUDGET_CLIENT_TYPE=client or hosted"),
        ({"client_type": "client"}, "CLIENT_TYPE=client needs the endpoint"),
        ({"store_url": "https://:secret\u2100@host", "api_key": "x"}, "is not a valid URL"),
        ({"client_type": "hosted", "store_url": "https://:secret@host"}, "exclude each other"),
    ],
)
def test_what_an_endpoint_needs(values: dict[str, Any], said: str) -> None:
    """The message never contains a secret."""
    with pytest.raises(BudgetSettingsError) as raised:
        BudgetSettings(**values)
    assert said in str(raised.value) and "secret" not in str(raised.value)


SECRET = "s3cr3t"
WITH_SECRETS: dict[str, dict[str, Any]] = {
    "store_url": {"store_url": f"postgresql://budgets:{SECRET}@host/db"},
    "a query": {"store_url": f"redis://host/0?password={SECRET}"},
    "api_base": {"api_base": f"https://:{SECRET}@host", "client_type": "client"},
    "api_key": {"api_key": SECRET, "store_url": "https://host"},
    "headers": {"headers": {"X-Key": SECRET}, "store_url": "https://host"},
}
SHOWN: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "str": str,
    "format": "{}".format,
    "pprint": pprint.pformat,
    "dictionary": lambda settings: repr(settings.model_dump()) + repr(dict(settings)) + repr(vars(settings)),
    "json": lambda settings: settings.model_dump_json() + json.dumps(settings.model_dump(mode="json")),
    "fields": lambda settings: repr([getattr(settings, name) for name in BudgetSettings.model_fields]),
    "copy": lambda settings: repr(copy.deepcopy(settings)) + repr(settings.model_copy(update={"mode": "off"})),
}


@pytest.mark.parametrize("values", WITH_SECRETS.values(), ids=WITH_SECRETS)
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_no_way_to_show_settings_shows_a_secret(values: dict[str, Any], show: Callable[[Any], str]) -> None:
    settings = BudgetSettings(**values)
    assert SECRET in settings.url
    assert SECRET not in show(settings)
    # A manager creates its settings from others.
    assert BudgetSettings(**settings.model_dump()).url == settings.url


@pytest.mark.parametrize("values", WITH_SECRETS.values(), ids=WITH_SECRETS)
def test_no_error_shows_a_secret(values: dict[str, Any]) -> None:
    """This covers errors of this setting, of other settings, of their combination, and pydantic's own errors."""
    name, shown = next(iter(values)), []
    for wrong in ({"mode": "of"}, {"client_type": "hosted"}, {name: [SECRET]}, {"hold_ttl": -1}):
        bad = {**values, **wrong}
        for make in (partial(BudgetSettings, **bad), partial(BudgetSettings.model_validate, bad)):
            try:
                make()
            except Exception as error:
                shown += traceback.format_exception(error)
    assert len(shown) >= 6 and SECRET not in "".join(shown)


def test_what_a_server_and_a_client_of_it_are_told_shows_no_secret() -> None:
    url = f"https://:{SECRET}@host?header=X-Key:{SECRET}"
    address = parse_address("https", url.partition("://")[2])
    assert SECRET in address.headers[0][1]
    theirs = postgres_address(f"postgresql://user:{SECRET}@host/db?sslpassword={SECRET}")
    assert SECRET.encode() in theirs.attempts[0]
    redis = redis_address("rediss", f"user:{SECRET}@host/0")
    for shown in (ServerOptions(url), address, theirs, redis):
        assert SECRET not in repr(shown) + str(shown) + pprint.pformat(shown)
