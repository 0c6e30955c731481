"""A folder uploaded to a model hub. The token comes from the environment alone and is never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from posttrain.errors import CheckpointError, ConfigError
from posttrain.rundir.masking import without_secrets

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def token_of(environment: Mapping[str, str] | None = None) -> str:
    """The token of the hub, from `HF_TOKEN`.

    Raises:
        ConfigError: There is none.
    """
    environment = os.environ if environment is None else environment
    token = next((environment[name].strip() for name in TOKENS if environment.get(name, "").strip()), None)
    if token is None:
        raise ConfigError(
            "there is no token of the hub",
            expected="the environment variable HF_TOKEN with a token that may write",
            where="--push",
            fix="make one at the hub under Settings, Access Tokens, then: HF_TOKEN=... posttrain export ...",
        )
    return token


def check_name(repo: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        ConfigError: It is not ORG/NAME.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise HFValidationError("no owner")
    except HFValidationError as error:
        raise ConfigError(
            f"{repo!r} is no name of a repository", expected="ORG/NAME, such as my-org/my-model", where="--push"
        ) from error


def push(folder: Path, repo: str, *, token: str, public: bool = False) -> str:
    """Upload a folder as a model repository, made if need be, and return its address.

    The hub is huggingface_hub's, which the environment variable `HF_ENDPOINT` sets.

    Args:
        folder: What is uploaded.
        repo: ORG/NAME.
        token: Of an account that may write there.
        public: Make a new repository public; without it an existing public one is refused.

    Raises:
        ConfigError: The hub refuses the token, or the repository is public and `public` was not asked for.
        CheckpointError: The hub could not be reached, or refused the upload.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    hub = HfApi(token=token)
    whole = f"the folder {folder} is whole: once that is put right, upload it by the same command with --force"
    try:
        hub.create_repo(repo, repo_type="model", private=not public, exist_ok=True)
        if not public and hub.model_info(repo).private is False:
            raise ConfigError(
                f"{repo} is there already and public",
                expected="a private repository",
                where="--push",
                fix="add --public to upload to it all the same, or name another one",
            )
        hub.upload_folder(folder_path=folder, repo_id=repo, repo_type="model", commit_message="Upload by posttrain")
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise ConfigError(
                f"the hub refuses the token for {repo} ({status}): {_first_line(error, token)}",
                expected="a token that may write there",
                where="--push",
                fix=whole,
            ) from None
        raise CheckpointError(
            f"the hub refused the upload: {_first_line(error, token)}", where=repo, fix=whole
        ) from None
    except (httpx.HTTPError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, ConfigError | CheckpointError):
            raise
        raise CheckpointError(
            f"the hub at {hub.endpoint} could not be reached: {_first_line(error, token)}", where=repo, fix=whole
        ) from None
    return f"{hub.endpoint}/{repo}"


def _first_line(error: Exception, token: str) -> str:
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return str(without_secrets(text.replace(token, "(the token)")))
