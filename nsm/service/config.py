"""Settings of the daemons: upstream's ``NSM_*`` variables, or one YAML file of the same names (reference §5).

A daemon declares a subclass of ``NsmSettings`` with the annotated types below, and its ``main`` calls
``load_settings(Settings)``. The environment wins over the file. All mistakes are reported at once, each as
``NSM_X: expected ..., got ...``.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeVar

import yaml
from pydantic import AliasChoices, Field, PlainValidator, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from nsm.model.context import DnsConfig
from nsm.service import values

Duration = Annotated[float, PlainValidator(values.duration)]
PositiveDuration = Annotated[float, PlainValidator(values.positive_duration)]
GoBool = Annotated[bool, PlainValidator(values.boolean)]
TextList = Annotated[tuple[str, ...], PlainValidator(values.text_list)]
TextMap = Annotated[Mapping[str, str], PlainValidator(values.text_map)]
LogLevel = Annotated[str, PlainValidator(values.log_level)]
Target = Annotated[str, PlainValidator(values.target)]
ListenUrls = Annotated[tuple[str, ...], PlainValidator(values.listen_urls)]
Urls = Annotated[tuple[str, ...], PlainValidator(values.urls)]
DnsConfigs = Annotated[tuple[DnsConfig, ...], PlainValidator(values.dns_configs)]
PrefixGroups = Annotated[tuple[tuple[values.Network, ...], ...], PlainValidator(values.prefix_groups)]

PREFIX: Final = "NSM_"
COMMON_POLICIES: Final = ("etc/nsm/opa/common/.*.rego",)
REGISTRY_SERVER_POLICIES: Final = (
    *COMMON_POLICIES,
    "etc/nsm/opa/registry/.*.rego",
    "etc/nsm/opa/server/.*.rego",
)
REGISTRY_CLIENT_POLICIES: Final = (
    *COMMON_POLICIES,
    "etc/nsm/opa/registry/.*.rego",
    "etc/nsm/opa/client/.*.rego",
)
IDENTITY_DIRECTORY: Final = "/run/nsm/identity"


class ConfigError(Exception):
    """Every mistake of a configuration, one a line."""


def unprefixed(variable: str) -> AliasChoices:
    """The ``validation_alias`` of a field read from a variable without ``NSM_`` (``NODE_NAME``)."""
    return AliasChoices(variable, variable.lower())


class NsmSettings(BaseSettings):
    """What every daemon has; durations in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, enable_decoding=False, frozen=True, extra="forbid", populate_by_name=True
    )
    summary: ClassVar[str] = ""

    name: str = Field(description="our name in paths and registrations")
    log_level: LogLevel = "INFO"
    max_token_lifetime: PositiveDuration = 600.0
    dial_timeout: PositiveDuration = 0.75
    request_timeout: PositiveDuration = Field(default=15.0, description="deadline of each call we make")
    spiffe_endpoint_socket: str = Field(
        default="",
        validation_alias=unprefixed("SPIFFE_ENDPOINT_SOCKET"),
        description="Workload API, unix:///path or tcp://ip:port; empty: the embedded service's socket",
    )
    identity_dir: str = Field(
        default=IDENTITY_DIRECTORY, description="where the embedded service keeps its sockets"
    )
    wire_log: str = Field(
        default="", description="file for every message we send and get, tokens taken out; for finding faults"
    )

    @property
    def call_timeout(self) -> float:
        """Seconds a call of ours may take: ``request_timeout``, but a third of a token's life at most.

        Who serves a call ends what came of it before the caller's token expires by as long as the call had: with a
        deadline beyond that it would end at once (trap 8).
        """
        return min(self.request_timeout, self.max_token_lifetime / 3)

    @property
    def identity_endpoint(self) -> str:
        """The Workload API to use: ``SPIFFE_ENDPOINT_SOCKET``, else our socket of the embedded service."""
        return self.spiffe_endpoint_socket or f"unix://{self.identity_dir}/{self.name}.sock"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments and the environment; ``load`` puts the file below the environment."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


Settings = TypeVar("Settings", bound=NsmSettings)


def load(settings: type[Settings], file: Path | None = None) -> Settings:
    """The settings of the environment over those of ``file``; ConfigError names every mistake."""
    keys = _keys(settings)
    from_file = _read(file) if file else {}
    problems = [
        f"{file}: expected names of settings, got {name!r}" for name in sorted(set(from_file) - set(keys))
    ]
    chosen: dict[str, Any] = {keys[name]: value for name, value in from_file.items() if name in keys}
    chosen |= {keys.get(name.lower(), name): value for name, value in EnvSettingsSource(settings)().items()}
    try:
        result = settings(**chosen)
    except ValidationError as error:
        problems += [_problem(settings, details) for details in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems)) from error
    if problems:
        raise ConfigError("\n".join(problems))
    return result


def load_settings(settings: type[Settings], argv: Sequence[str] | None = None) -> Settings:
    """For ``main``: ``[--config FILE]``; mistakes go to stderr, exit status 2."""
    parser = argparse.ArgumentParser(
        description=settings.summary or None,
        epilog=_variables(settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file, keys = names without NSM_ in lower case"
    )
    arguments = parser.parse_args(argv)
    try:
        return load(settings, arguments.config)
    except ConfigError as error:
        parser.exit(2, f"{error}\n")


def variable(settings: type[NsmSettings], field: str) -> str:
    """The environment variable of a field."""
    info = settings.model_fields.get(field)
    alias = info.validation_alias if info else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias) if alias else f"{PREFIX}{field.upper()}"


def _read(file: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: expected a readable YAML file, got {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{file}: expected a mapping of names to values, got {type(content).__name__}")
    return content


def _keys(settings: type[NsmSettings]) -> dict[str, str]:
    """The name of each setting in a file, and the keyword the settings class takes it by."""
    return {
        variable(settings, name).lower() if info.validation_alias else name: (
            variable(settings, name) if info.validation_alias else name
        )
        for name, info in settings.model_fields.items()
    }


def _problem(settings: type[NsmSettings], details: Mapping[str, object]) -> str:
    """One line of one pydantic error."""
    location = details["loc"]
    place = str(location[0]) if isinstance(location, tuple) and location else ""
    name = place if place.isupper() else variable(settings, place)
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] == "missing":
        message = "expected a value, got none"
    elif message.startswith("Input should be "):
        message = f"expected {message.removeprefix('Input should be ')}, got {details['input']!r}"
    return f"{name}: {message}"


def _variables(settings: type[NsmSettings]) -> str:
    lines = ["environment variables:"]
    for name, info in settings.model_fields.items():
        default = (
            "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)!r}"
        )
        lines.append(f"  {variable(settings, name)}  ({default})  {info.description or ''}".rstrip())
    return "\n".join(lines)
