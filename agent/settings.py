"""Settings: defaults < profile < TOML file < FLAWSCOPE_* environment < flags, each value with its origin.

This is the one place that reads the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from .errors import ConfigError
from .home import Home

PROFILES = Path(__file__).parent / "profiles"
ENV_PREFIX = "FLAWSCOPE_"
SHARED_ENV = {"MILVUS_URI": "milvus_uri", "MILVUS_TOKEN": "milvus_token"}
"""Names that other programs use for the same; FLAWSCOPE_* overrides them."""
SECRETS = frozenset({"llm_api_key", "mcp_token", "milvus_token", "mqtt_password", "webhook_key"})
"""Taken from the environment (or a caller) only; pydantic masks them wherever settings are shown or recorded."""


class Settings(BaseModel):
    """Everything that can be set. Field descriptions are the documentation (``flawscope config show``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    profile: str = Field(
        "embedded", description="the set of defaults: embedded, paper, paper-3b, or a TOML file's path"
    )
    home: Path | None = Field(None, description="where products, knowledge and artifacts are kept")
    backbone: str = Field("efficientnet-lite2", description="feature extractor")
    clip_model: str = Field(
        "ViT-L-14-336-quickgelu", description="open_clip architecture of the clip backbone, with its activation"
    )
    clip_weights: Path | None = Field(
        None, description="CLIP checkpoint, or folder with an open_clip_config.json; else the home's models"
    )
    clip_image_size_px: int = Field(
        518, ge=32, le=2048, description="square canvas that pictures are fitted into for the clip backbone"
    )
    loc_mode: Literal["softmax", "paper"] = Field(
        "softmax", description="how patches are compared with words: softmax of cosines, or the paper's ratio"
    )
    trained_prompts: Path | None = Field(
        None, description="prompts.safetensors of train expert in place of the generic words; for its own CLIP weights"
    )
    trained_head: Path | None = Field(
        None, description="head.npz of train expert to score whole pictures with; for its own embedded backbone"
    )
    retriever: Path | None = Field(
        None, description="retriever.safetensors of train retriever, applied to pictures before they are compared"
    )
    reasoner: str = Field(
        "evidence", description="who composes the report: evidence, qwen_vl (in this process) or openai_api (a server)"
    )
    vlm_model: str = Field(
        "qwen2.5-vl-7b", pattern=r"^[\w.-]+$", description="folder of the qwen_vl checkpoint among the home's models"
    )
    vlm_weights: Path | None = Field(
        None, description="folder of any Qwen2.5-VL checkpoint; else vlm_model among the home's models"
    )
    vlm_device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where qwen_vl runs; auto: CUDA if there")
    vlm_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="its numbers; auto: bfloat16 on CUDA, float32 on the CPU"
    )
    vlm_4bit: bool = Field(False, description="quantise its weights to 4 bits while loading (CUDA only)")
    vlm_min_pixels: int = Field(3_136, ge=784, description="smaller pictures are enlarged for it")
    vlm_max_pixels: int = Field(
        1_003_520, ge=784, le=12_845_056, description="larger pictures are reduced for it: 784 px cost a token"
    )
    vlm_memory: float | None = Field(
        None,
        gt=0.0,
        allow_inf_nan=False,
        description="for its weights and a question: bytes, or up to 1 a share of the device's; none: what is free",
    )
    vlm_max_pictures: int = Field(12, ge=1, le=256, description="of one question; what is left out is said")
    vlm_max_prompt: int = Field(16_384, ge=256, le=131_072, description="tokens of a question with its pictures")
    vlm_max_tokens: int = Field(768, ge=64, le=8192, description="length of a model's answer at most, in tokens")
    vlm_adapter: Path | None = Field(
        None, description="folder of a LoRA adapter of train lora to put into qwen_vl, for comparison; none: as it is"
    )
    prior_tokens: Path | None = Field(
        None,
        description="tokens.safetensors of train tokens: the expert's evidence as vectors for qwen_vl; off if none",
    )
    calibrator: Path | None = Field(
        None, description="file of bench calibrate: doubt is 1 - P(correct) instead of the entropy; none: uncalibrated"
    )
    overlay: bool = Field(
        False,
        description="show a model the expert's map over the picture too; measured elsewhere to cost detection accuracy",
    )
    latent: bool = Field(False, description="let qwen_vl search in its embedding space when it is in doubt")
    latent_normals: Path | None = Field(
        None,
        description="normals.json of bench ablation --goods: leaves latent out if it spoils good parts; none: unknown",
    )
    false_alarm: float = Field(0.05, gt=0.0, lt=0.5, description="stated share of good parts that may alarm")
    retrieval: Literal["relevance", "paper", "top_k", "mmr"] = Field(
        "relevance", description="how documents are chosen"
    )
    store: Literal["milvus", "memory"] = Field(
        "milvus", description="Milvus Lite (one process at a time) or a read-only copy in memory (any number)"
    )
    milvus_uri: str | None = Field(
        None, description="address of a Milvus server, such as http://127.0.0.1:19530; none: Milvus Lite"
    )
    milvus_token: SecretStr | None = Field(None, description="what the Milvus server asks for; never shown")
    milvus_timeout_s: float = Field(
        3.0, gt=0.0, le=600.0, allow_inf_nan=False, description="an answer of the Milvus server is awaited so long"
    )
    knowledge_required: bool = Field(
        False, description="stop when the Milvus server is away, instead of inspecting without its pages"
    )
    documents: int = Field(4, ge=1, le=20, description="documents per round")
    max_actions: int = Field(3, ge=0, le=5, description="retry actions at most, each once")
    time_budget_s: float = Field(
        30.0, gt=0.0, allow_inf_nan=False, description="no further action starts after this many seconds"
    )
    entropy_accept: float = Field(0.6, ge=0.0, le=1.0, description="decision entropy up to which a verdict is accepted")
    entropy_settled: float = Field(
        0.2, ge=0.0, le=1.0, description="decision entropy up to which a verdict that was doubtful at first is accepted"
    )
    ask_again: bool = Field(
        False, description="ask a doubtful model again, drawn and in other orders: signs of doubt for a calibrator"
    )
    actions: tuple[Literal["zoom", "reference", "self_consistency", "more_docs", "refute", "latent"], ...] = Field(
        ("zoom", "reference", "latent", "refute", "self_consistency", "more_docs"),
        description="retry actions, in order of preference; refute and latent are for reasoners that are models",
    )
    ask_human: bool = Field(
        False, description="interrupt for a person instead of ending in REVIEW (needs a checkpointer)"
    )
    second_person: bool = Field(False, description="a review decision is confirmed by somebody other than who made it")
    max_pixels: int = Field(200_000_000, ge=1, description="larger pictures are refused")

    llm_base_url: str | None = Field(
        None, description="OpenAI-compatible language-model server, such as http://localhost:8000/v1; none by default"
    )
    llm_model: str | None = Field(None, description="which of that server's models to ask")
    llm_api_key: SecretStr | None = Field(
        None, description="that server's key, if it wants one: environment only, never shown"
    )
    llm_timeout_s: float = Field(
        120.0, gt=0.0, le=3600.0, allow_inf_nan=False, description="a question to that server may take so long"
    )
    llm_retries: int = Field(3, ge=0, le=10, description="how often such a question is asked again after a failure")
    llm_concurrency: int = Field(4, ge=1, le=64, description="questions that the server gets at the same time")

    mcp_token: SecretStr | None = Field(
        None, description="what `mcp --http` asks its clients for, 16 characters or more: environment only, never shown"
    )
    mqtt_user: str | None = Field(None, description="who `watch` is to an MQTT broker, if it asks")
    mqtt_password: SecretStr | None = Field(
        None, description="that user's password, if the broker wants one: environment only, never shown"
    )
    webhook_key: SecretStr | None = Field(
        None, description="what webhooks are signed with, base64 of 24 to 64 bytes: environment only, never shown"
    )
    publish_timeout_s: float = Field(
        10.0, gt=0.0, le=600.0, allow_inf_nan=False, description="a broker or webhook may take so long to answer"
    )

    @field_validator("milvus_uri", "llm_base_url")
    @classmethod
    def _is_a_plain_address(cls, value: str | None) -> str | None:
        return None if value is None else plain_address(value)

    @field_validator("llm_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("it must be printable ASCII without blanks")
        return value

    @field_validator("mcp_token")
    @classmethod
    def _cannot_be_guessed(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{16,}", value.get_secret_value()):
            raise ValueError("it must be 16 characters of printable ASCII or more, without blanks")
        return value


def plain_address(value: str) -> str:
    """An address that can be printed and recorded, without slashes at its end.

    Raises:
        ValueError: it is none, or something in it may be a secret or steer a terminal; what that is is not repeated.
    """
    if any(char.isspace() or not char.isprintable() for char in value):
        raise ValueError("it must not hold blanks or control characters")
    if any(mark in value for mark in "@?#"):  # wherever it stands: with a slash in it a password begins a path
        raise ValueError("it must not hold a user, password, query or fragment; secrets are settings of their own")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:  # which may quote a password that was taken for a port
        raise ValueError("it has no usable host or port") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("an address is http://HOST:PORT or https://HOST:PORT")
    return value.rstrip("/")


class LoadedSettings(BaseModel):
    """Settings and where each value came from (``default``, ``profile …``, ``file …``, ``env …``, ``flag``)."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    origins: dict[str, str]

    @property
    def home(self) -> Home:
        """The state directory: the setting, else the platform's place for user data."""
        if self.settings.home is not None:
            try:
                return Home(self.settings.home.expanduser())
            except RuntimeError as error:  # "~nobody/…"
                raise ConfigError(f"setting 'home' ({self.origins['home']}) names an unknown user's folder.") from error
        from platformdirs import user_data_path

        return Home(user_data_path("flawscope"))

    def false_alarm_of(self, enrolled: float | None) -> float:
        """The false-alarm rate for a product: what was asked for now, else what its enrolment stated, else the default.

        Args:
            enrolled: the rate stated when the product was enrolled, None when none was.
        """
        asked = not self.origins["false_alarm"].startswith(("default", "profile"))
        return self.settings.false_alarm if asked or enrolled is None else enrolled


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Layer the settings.

    Args:
        flags: values given by the caller; None means not given.
        config_file: a TOML file; when None, ``FLAWSCOPE_CONFIG`` names one.
        environ: the environment, ``os.environ`` by default.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, an unreadable file.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    from_env = {
        key[len(ENV_PREFIX) :].lower(): value
        for key, value in environ.items()
        if key.startswith(ENV_PREFIX) and key != f"{ENV_PREFIX}CONFIG" and value != ""
    }
    shared = {name: key for name, key in SHARED_ENV.items() if environ.get(name)}
    file = config_file or (Path(environ[f"{ENV_PREFIX}CONFIG"]) if environ.get(f"{ENV_PREFIX}CONFIG") else None)
    from_file = _read_toml(file) if file else {}
    profile = str(given.get("profile") or from_env.get("profile") or from_file.get("profile") or "embedded")
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"profile {profile}", _read_profile(profile)),
        (f"file {file}", from_file),
        *((f"env {name}", {key: environ[name]}) for name, key in shared.items()),
        ("env", {key: _parse_env(key, value) for key, value in from_env.items()}),
        ("flag", given),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in layers:
        for key, value in layer.items():
            if key not in Settings.model_fields:
                raise ConfigError(f"unknown setting {key!r} ({origin}).", hint=_suggest(key))
            if key in SECRETS and origin.startswith(("profile", "file")):
                raise ConfigError(
                    f"setting {key!r} ({origin}) is a secret and must not stand in a file.",
                    hint=f"Set {ENV_PREFIX}{key.upper()}.",
                )
            values[key] = value
            origins[key] = f"env {ENV_PREFIX}{key.upper()}" if origin == "env" else origin
    try:
        return LoadedSettings(settings=Settings(**values), origins=origins)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        raise ConfigError(
            f"setting {key!r} ({origins.get(key, 'given')}) is not usable: {first['msg']}.",
            hint=f"It is: {Settings.model_fields[key].description}." if key in Settings.model_fields else None,
        ) from error


def _read_profile(name: str) -> dict[str, Any]:
    path = PROFILES / f"{name}.toml"
    if path.is_file():
        return _read_toml(path)
    if name.endswith(".toml"):
        return _read_toml(Path(name))
    known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml")))
    raise ConfigError(f"unknown profile {name!r}.", hint=f"Known: {known}, or the path of a .toml file.")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror or error}.") from error
    except RecursionError as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: nested too deep.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: {error}.") from error


def _parse_env(key: str, value: str) -> Any:
    """Lists are comma-separated; every other type is parsed from its text by pydantic."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if key == "actions" else value


def _suggest(key: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, Settings.model_fields, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(Settings.model_fields)}."


@dataclass(frozen=True)
class SettingRow:
    """One setting as ``config show`` prints it."""

    name: str
    value: str
    origin: str
    meaning: str


def describe_settings(loaded: LoadedSettings) -> list[SettingRow]:
    """Every setting with its value, origin and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        value = loaded.home.root if name == "home" else getattr(loaded.settings, name)
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        rows.append(SettingRow(name, text, loaded.origins[name], field.description or ""))
    return rows
