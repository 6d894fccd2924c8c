"""The settings: environment variables named LITELLM_BUDGET_*, a .env file, or constructor arguments.

This is the only place that reads the environment. docs/reference.md lists every setting.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from litellm_budget_plugin.budget_file import MOST_PER_CENT, read_file
from litellm_budget_plugin.core.accounts import SCOPES
from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import Limit, parse_limits
from litellm_budget_plugin.core.windows import checked_zone, parse_window
from litellm_budget_plugin.errors import BudgetInputError, BudgetSettingsError
from litellm_budget_plugin.policy import Policy, Table

PREFIX = "LITELLM_BUDGET_"
USER_SOURCES = ("context", "metadata", "user", "proxy", "default")

_logger = logging.getLogger("litellm_budget_plugin")
# The variables that Kubernetes sets in every container for a service named "litellm-budget".
_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_.*")
_DEFAULT_URL = "sqlite:///litellm_budget.db"
_ENV_FILE = ".env"
_LITELLM_HOSTED = "https://api.litellm.ai"
_SECRET = ("store_url", "api_base", "api_key", "headers", "alert_webhook", "alert_secret", "alert_smtp_url")
"""Fields that hold secrets, URLs too: they are SecretStr, and errors do not show them."""


class BudgetSettings(BaseSettings):
    """Settings of the callback and the manager. A bad value raises BudgetSettingsError, naming the setting."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=_ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    _reads_environment: ClassVar[bool] = True

    project: str = Field(
        "default", description="The project that the ledger belongs to; BudgetManager's `project_name`."
    )
    store_url: SecretStr | None = Field(
        None,
        description="Where the ledger lives: `sqlite:///file.db`, `postgresql://…`, `redis://…`, `https://…` or `memory://`. "
        "Default: `sqlite:///litellm_budget.db`.",
    )
    client_type: Literal["local", "hosted", "client"] = Field(
        "local",
        description="Where budgets are saved, in LiteLLM's terms: `hosted` by LiteLLM's service or the one at API_BASE, "
        "`client` by your own at API_BASE.",
    )
    api_base: SecretStr | None = Field(None, description="The endpoint of `hosted` and `client`.")
    api_key: SecretStr | None = Field(None, description="The key of an endpoint, sent as `Authorization: Bearer`.")
    headers: Annotated[dict[str, SecretStr], NoDecode] = Field(
        {}, description="JSON object of further HTTP headers for an endpoint."
    )
    default_limit: Decimal | None = Field(
        None,
        description="USD that each user without a budget of their own may spend per window. 0 blocks priced calls.",
    )
    default_window: str = Field("none", description="The window of DEFAULT_LIMIT: `none`, `12h`, `daily`, `month`, ...")
    user_limits: str | None = Field(
        None,
        description="Limits of each user, as sentences separated by commas: `$1/day, $10/month, $2/day for gpt-4o*`.",
    )
    team_limits: str | None = Field(None, description="Limits of each team.")
    tag_limits: str | None = Field(None, description="Limits of each tag.")
    run_limits: str | None = Field(None, description="Limits of each run of an agent.")
    project_limits: str | None = Field(None, description="Limits of all users together.")
    file: str | None = Field(
        None,
        description="A file of limits for scopes, classes of users and single subjects, in TOML or YAML. It is read again when it "
        "changes.",
    )
    project_limit: Decimal | None = Field(None, description="USD that all users together may spend per window.")
    project_window: str = Field("none", description="The window of PROJECT_LIMIT.")
    timezone: str = Field("UTC", description="Where calendar windows that name no zone begin and end.")
    mode: Literal["enforce", "shadow", "off"] = Field(
        "enforce",
        description="`shadow` refuses no call and logs those that would be refused; `off` does nothing at all.",
    )
    store_timeout: float = Field(
        0.25,
        gt=0,
        le=60,
        description="Seconds that a call may wait for the store; everything else may wait 8 times as long.",
    )
    on_store_error: Literal["reject", "allow"] = Field(
        "reject", description="What happens to calls while the store does not answer."
    )
    slice: Decimal = Field(
        Decimal(0),
        description="USD that each process may hold ahead for a busy user on a networked ledger, to admit calls from memory. "
        "0: every call asks the ledger.",
    )
    journal: str | None = Field(
        None,
        description="Directory for charges that the store cannot take; `off` keeps them in memory only. Default: "
        "`litellm_budget_journal` beside the database, or in the working directory.",
    )
    journal_limit: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Charges that may wait in one process; beyond that, calls are refused until the store answers.",
    )
    on_unknown_price: Literal["reject", "allow"] = Field(
        "reject", description="What happens to a call whose model has no known price, where a limit applies."
    )
    on_missing_user: Literal["allow", "reject"] = Field(
        "allow", description="What happens to a call without a user; `allow` charges DEFAULT_USER."
    )
    default_user: str = Field("anonymous", description="The user who is charged for calls without a user.")
    user_from: str = Field(
        ",".join(USER_SOURCES), description="The sources of a call's user, in this order, separated by commas."
    )
    output_allowance: int = Field(
        4096, ge=1, le=10_000_000, description="Output tokens that are held for a call without `max_tokens`."
    )
    unbounded_hold: Decimal = Field(
        Decimal("0.10"),
        description="USD that is held for a call whose maximum cost cannot be computed: OCR of a URL, a realtime session, ...",
    )
    stream_usage: bool = Field(
        True, description="Ask providers for the usage of streams whose callers do not; callers see the same chunks."
    )
    wait_for_held: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Seconds that a call waits for money that only calls in flight hold, before it is refused.",
    )
    cap_output: bool = Field(
        False, description="Near a limit, lower a call's `max_tokens` to what there is room for instead of refusing it."
    )
    min_output: int = Field(
        256,
        ge=1,
        le=10_000_000,
        description="The fewest output tokens to which CAP_OUTPUT lowers a call; below it, the call is refused.",
    )
    fallback_models: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="JSON object from a model to a cheaper one of the same provider, which is called instead near a limit.",
    )
    hold_ttl: float = Field(
        120.0,
        ge=1,
        le=86_400,
        description="Seconds after which holds of a dead process expire; holds of a running one are renewed.",
    )
    retention: float = Field(
        30.0,
        ge=1,
        le=3_650,
        description="Days for which settled calls are remembered, to prevent double charges; day totals are kept for 400.",
    )

    alert_at: str = Field(
        "80,100",
        description="Percentages of a limit at which an alert is sent, separated by commas, money held counted as spent; `off`: no alerts. "
        "A table's `alert_at` in FILE takes precedence.",
    )
    alert_webhook: SecretStr | None = Field(
        None,
        description="URLs that alerts are posted to, separated by white space or commas. Slack, Teams and Discord get "
        "messages in their own format, others JSON.",
    )
    alert_secret: SecretStr | None = Field(
        None, description="The key that signs alerts in JSON, by HMAC-SHA256; see docs/how-to/get-alerts.md."
    )
    alert_mail_to: str | None = Field(None, description="Addresses that alerts are mailed to, separated by commas.")
    alert_mail_from: str | None = Field(None, description="The sender's address of alerts by mail.")
    alert_smtp_url: SecretStr | None = Field(
        None,
        description="The mail server: `smtp://user:password@host:587` (with STARTTLS; `?starttls=off` without) or "
        "`smtps://…:465`.",
    )
    metrics: bool = Field(
        True, description="Prometheus metrics of this process, where `prometheus-client` is installed."
    )
    on_start_error: Literal["stop", "warn"] = Field(
        "stop",
        description="What `litellm-budget run` and `litellm_budget_plugin.auto` do where budgets cannot be enforced: end the process, "
        "or log one ERROR and go on without budgets.",
    )

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - type(self).model_fields.keys()
        if unknown:
            raise BudgetSettingsError(f"unknown setting {min(unknown)!r}{_suggest(min(unknown))}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BudgetSettingsError(_explain(error)) from None
        if self._reads_environment:
            _check_names()

    @field_validator("project", "default_user")
    @classmethod
    def _ids(cls, value: str) -> str:
        return checked_id(value, "it")

    @field_validator("default_limit", "project_limit", "unbounded_hold", "slice")
    @classmethod
    def _limits(cls, value: Decimal | None) -> Decimal | None:
        if value is not None:
            charge_nanos(value, "it")
        return value

    @field_validator("timezone")
    @classmethod
    def _zones(cls, value: str) -> str:
        return checked_zone(value)

    @field_validator("default_window", "project_window")
    @classmethod
    def _windows(cls, value: str) -> str:
        parse_window(value)
        return value

    @field_validator("user_limits", "team_limits", "tag_limits", "run_limits", "project_limits", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    @field_validator("user_limits", "team_limits", "tag_limits", "run_limits", "project_limits")
    @classmethod
    def _sentences(cls, value: str | None) -> str | None:
        parse_limits(value or "")
        return value

    @field_validator("user_from")
    @classmethod
    def _sources(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if not set(names) <= set(USER_SOURCES) or len(set(names)) != len(names):
            raise ValueError(f"it must be a list, each at most once, of {', '.join(USER_SOURCES)}")
        return ",".join(names)

    @field_validator("alert_at", mode="before")
    @classmethod
    def _per_cents(cls, value: object) -> object:
        return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    @field_validator("alert_at")
    @classmethod
    def _thresholds(cls, value: str) -> str:
        per_cents(value)
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _webhooks(cls, value: SecretStr | None) -> SecretStr | None:
        for url in _listed(value):
            if urlsplit(url).scheme.lower() not in ("http", "https") or not urlsplit(url).hostname or not url.isascii():
                raise ValueError("it must be a list of URLs like https://hooks.example.com/budgets")
        return value

    @field_validator("alert_mail_to", "alert_mail_from")
    @classmethod
    def _mails(cls, value: str | None) -> str | None:
        for address in _listed(value):
            if not re.fullmatch(r"[^@<>\s,;:()\"\\]+@[^@<>\s,;:()\"\\]+", address) or not address.isprintable():
                raise ValueError(f"{address!r:.80} is not an address like ops@example.com")
        return value

    @field_validator("alert_smtp_url")
    @classmethod
    def _mail_servers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                parts = urlsplit(value.get_secret_value())
                good = parts.scheme.lower() in ("smtp", "smtps") and parts.hostname and (parts.port or 1)
            except ValueError:  # its message may hold a password
                good = False
            if not good or parts.query not in ("", "starttls=off"):
                raise ValueError("it must be a URL like smtp://user:password@mail.example.com:587")
        return value

    @field_validator("fallback_models", mode="before")
    @classmethod
    def _models(cls, value: object) -> object:
        return _object(value, 'it must be a JSON object from model to cheaper model, like {"gpt-4o": "gpt-4o-mini"}')

    @field_validator("headers", mode="before")
    @classmethod
    def _headers(cls, value: object) -> object:
        return _object(value, 'it must be a JSON object from header to value, like {"X-Team": "platform"}')

    @field_validator("api_base")
    @classmethod
    def _bases(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().lower().startswith(("http://", "https://")):
            raise ValueError("it must be the URL of an endpoint, like https://budgets.example.com")
        return value

    @field_validator("fallback_models")
    @classmethod
    def _chains(cls, value: dict[str, str]) -> dict[str, str]:
        for start in value:
            chain = [start]
            while chain[-1] in value:
                chain.append(value[chain[-1]])
                if chain[-1] in chain[:-1]:
                    raise ValueError(f"a model must not lead back to itself: {' -> '.join(chain)}")
            if not all(name.strip() for name in chain):
                raise ValueError("a model's name must not be empty")
        return value

    @model_validator(mode="after")
    def _together(self) -> BudgetSettings:
        if self.store_url is not None and self.client_type != "local":
            raise ValueError(
                f"{PREFIX}STORE_URL and {PREFIX}CLIENT_TYPE={self.client_type} exclude each other: give one of them"
            )
        if self.client_type == "client" and self.api_base is None:
            raise ValueError(
                f"{PREFIX}CLIENT_TYPE=client needs the endpoint: {PREFIX}API_BASE, or api_base= of BudgetManager"
            )
        if self.client_type == "local" and self.api_base is not None:
            raise ValueError(f"{PREFIX}API_BASE needs {PREFIX}CLIENT_TYPE=client or hosted")
        if self.api_key or self.headers:
            self._check_endpoint()
        mail = (self.alert_mail_to, self.alert_mail_from, self.alert_smtp_url)
        if any(mail) and not all(mail):
            raise ValueError(
                f"alerts by mail take all of {PREFIX}ALERT_MAIL_TO, {PREFIX}ALERT_MAIL_FROM and {PREFIX}ALERT_SMTP_URL"
            )
        self._check_limits()
        return self

    def _check_limits(self) -> None:
        for scope in SCOPES:
            try:
                self._limits_of(scope)
            except BudgetInputError as error:
                raise ValueError(
                    f"{PREFIX}{scope.upper()}_LIMITS and the other limits of every {scope}: {error}"
                ) from None

    def _check_endpoint(self) -> None:
        if not self._place.lower().startswith(("http://", "https://")):
            raise ValueError(f"{PREFIX}API_KEY and {PREFIX}HEADERS are for an endpoint: an http:// or https:// store")
        try:
            urlsplit(self._place)
        except ValueError:  # its message may hold a key
            raise ValueError(f"{PREFIX}STORE_URL or {PREFIX}API_BASE is not a valid URL") from None

    @property
    def _place(self) -> str:
        given = self.store_url if self.client_type == "local" else self.api_base
        return (given and given.get_secret_value()) or (
            _DEFAULT_URL if self.client_type == "local" else _LITELLM_HOSTED
        )

    @property
    def url(self) -> str:
        """The store's URL or its default, with the key and headers for an endpoint in it. A secret."""
        if self.api_key is None and not self.headers:
            return self._place
        key = None if self.api_key is None else self.api_key.get_secret_value()
        return with_secrets(self._place, key, {name: one.get_secret_value() for name, one in self.headers.items()})

    @property
    def user_sources(self) -> tuple[str, ...]:
        """The names in USER_FROM, in their order."""
        return tuple(self.user_from.split(","))

    @cached_property
    def alert_per_cents(self) -> tuple[int, ...] | None:
        """The thresholds in ALERT_AT in per cent, ascending; None: no alerts."""
        return per_cents(self.alert_at)

    @cached_property
    def alert_webhooks(self) -> tuple[str, ...]:
        """The URLs in ALERT_WEBHOOK. Secrets."""
        return _listed(self.alert_webhook)

    @cached_property
    def alert_recipients(self) -> tuple[str, ...]:
        """The addresses in ALERT_MAIL_TO."""
        return _listed(self.alert_mail_to)

    @cached_property
    def unbounded_hold_nanos(self) -> int:
        """UNBOUNDED_HOLD in nano-dollars."""
        return charge_nanos(self.unbounded_hold)

    @cached_property
    def scope_limits(self) -> dict[str, Table]:
        """The limits of whole scopes."""
        found = {scope: self._limits_of(scope) for scope in SCOPES}
        return {scope: Table(limits) for scope, limits in found.items() if limits}

    def _limits_of(self, scope: str) -> tuple[Limit, ...]:
        texts = [getattr(self, f"{scope}_limits") or ""]
        short = {
            "user": (self.default_limit, self.default_window),
            "project": (self.project_limit, self.project_window),
        }
        limit, window = short.get(scope, (None, "none"))
        if limit is not None:
            texts.insert(0, str(Limit(charge_nanos(limit), parse_window(window, self.timezone).text)))
        return parse_limits(texts, self.timezone)

    def read_policy(self) -> Policy:
        """Return all limits that are set outside the ledger. Raises BudgetSettingsError for a file that cannot be accepted."""
        recorded = parse_window(self.default_window, self.timezone).text
        if self.file is None:
            return Policy(self.scope_limits, recorded=recorded)
        return read_file(self.file, self.timezone, self.scope_limits, recorded)


class GivenSettings(BudgetSettings):
    """Settings from constructor arguments and defaults only, for a ledger that is independent of the application's."""

    _reads_environment: ClassVar[bool] = False

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return only the source for constructor arguments."""
        return (init_settings,)


def per_cents(text: str) -> tuple[int, ...] | None:
    """Return the thresholds in a text like "80,100", ascending; None for "off" and for an empty text. Raises ValueError."""
    words = [word.strip().removesuffix("%").strip() for word in text.split(",") if word.strip()]
    if not words or [word.lower() for word in words] == ["off"]:
        return None
    if not all(
        word.isascii() and word.isdigit() and len(word) <= 4 and 0 < int(word) <= MOST_PER_CENT for word in words
    ):
        raise ValueError(f"it must be a list of percentages from 1 to {MOST_PER_CENT} like 80,100, or off")
    return tuple(sorted({int(word) for word in words}))


def _listed(value: SecretStr | str | None) -> tuple[str, ...]:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
    return tuple(dict.fromkeys(re.split(r"[\s,]+", text.strip(" \t\r\n,")))) if text.strip(" \t\r\n,") else ()


def url_from(given: str) -> str:
    """Return a store's URL as it was given or, for `env:NAME`, the value of the environment variable NAME: everybody on the machine can
    read the arguments of a command. Raises BudgetInputError if the variable is not set or empty.
    """
    if not given.startswith("env:"):
        return given
    name = given.removeprefix("env:")
    url = os.environ.get(name, "")
    if not url:
        raise BudgetInputError(
            f"{given}: the environment variable {name!r} is not set; it must hold the URL of a store"
        )
    return url


def with_secrets(url: str, key: str | None, headers: dict[str, str]) -> str:
    """Return an endpoint's URL with its key and further headers in it, so that one string holds everything."""
    parts = urlsplit(url)
    place = parts.netloc if key is None else f":{quote(key, safe='')}@{parts.netloc.rpartition('@')[2]}"
    added = urlencode([("header", f"{name}:{value}") for name, value in headers.items()])
    return urlunsplit(parts._replace(netloc=place, query="&".join(part for part in (parts.query, added) if part)))


def _object(value: object, what: str) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise ValueError(what)  # noqa: TRY004  # pydantic adds the setting's name
    return value


def on_start_error() -> str:
    """Return `warn` if ON_START_ERROR says so, else `stop`. Works also if another setting is bad."""
    name = f"{PREFIX}ON_START_ERROR"
    given = {**_dotenv(), **os.environ}
    said = next((value for key, value in reversed(given.items()) if key.upper() == name and value), None)
    return "warn" if said == "warn" else "stop"


def _dotenv() -> dict[str, str | None]:
    try:
        return dotenv_values(_ENV_FILE)
    except (OSError, ValueError):
        return {}


def set_env_default(name: str, value: str) -> None:
    """Set an environment variable for this process and the processes that it starts, unless it is set."""
    os.environ.setdefault(name, value)


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
        message = problem["msg"].removeprefix("Value error, ")
        secret = not problem["loc"] or problem["loc"][0] in _SECRET
        problems.append(
            (f"{name}: {message}" if problem["loc"] else message)
            if secret
            else f"{name}: {message} (got {problem['input']!r:.80})"
        )
    return "; ".join(problems)


class UnknownName(NamedTuple):
    """A name with the settings' prefix that is no setting. `suggestion` is the setting with the most similar name; "" if there is none."""

    given: str
    suggestion: str


def unknown_names() -> list[UnknownName]:
    """Return every name in the environment and the .env file that has the settings' prefix but is no setting."""
    known = {name.upper() for name in BudgetSettings.model_fields}
    found = []
    for given in sorted({*os.environ, *dotenv_values(_ENV_FILE)}):
        name = given.upper().removeprefix(PREFIX)
        if name != given.upper() and name not in known and not _KUBERNETES.fullmatch(name):
            found.append(UnknownName(given, _closest(name)))
    return found


def _check_names() -> None:
    """Report misspelt settings, because a service without limits looks like a limited one. Raises BudgetSettingsError for a name that is
    similar to a setting, and logs a WARNING for any other unknown name.
    """
    for given, suggestion in unknown_names():
        if suggestion:
            raise BudgetSettingsError(f"unknown setting {given}; did you mean {suggestion}?")
        _logger.warning("unknown setting %s is ignored; docs/reference.md lists the settings", given)


class Origin(NamedTuple):
    """The source of a setting's value: "argument", "environment", ".env" or "default". `text` is the value as it was written there; None
    for a default. `secret` says whether it is a secret.
    """

    setting: str
    source: str
    text: str | None
    secret: bool


def origins(given: Mapping[str, object]) -> list[Origin]:
    """Return the source of each setting for `BudgetSettings(**given)`, also if a value is bad."""
    environment = {name.upper(): value for name, value in os.environ.items() if value}
    file = {name.upper(): value for name, value in dotenv_values(_ENV_FILE).items() if value}
    found = []
    for name in BudgetSettings.model_fields:
        key = f"{PREFIX}{name}".upper()
        text: str | None = None
        if name in given:
            source, text = "argument", str(given[name])
        elif key in environment:
            source, text = "environment", environment[key]
        elif key in file:
            source, text = ".env", file[key]
        else:
            source = "default"
        secret = "SecretStr" in str(BudgetSettings.model_fields[name].annotation)
        found.append(Origin(key, source, text, secret))
    return found


def _suggest(name: str) -> str:
    close = _closest(name)
    return f"; did you mean {close}?" if close else ""


def _closest(name: str) -> str:
    close = difflib.get_close_matches(name.upper(), [known.upper() for known in BudgetSettings.model_fields], 1, 0.75)
    return f"{PREFIX}{close[0]}" if close else ""
