"""Folders uploaded to the Hugging Face hub as the repository of a model."""

from pathlib import Path
from typing import Any

from stav2a.utils.downloads import reason
from stav2a.utils.errors import StaV2AError, UsageError

NOT_KNOWN, NO_RIGHT = 401, 403
LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN, by a token with the right to write."


class UploadError(StaV2AError):
    """A folder that the hub does not take, or that does not arrive there."""


def check_repository(repository: str, token: str | None = None) -> None:
    """Refuse what can't be uploaded to, without asking the hub.

    Args:
        repository: Name `owner/model`.
        token: Token of the hub; None for the one of `hf auth login`, or of the environment's HF_TOKEN.

    Raises:
        UsageError: It is no name of a repository, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{reason(error)}", advice="Expected OWNER/MODEL.") from None
    if "/" not in repository:
        raise UsageError(f"{repository!r} has no owner on the hub.", advice="Expected OWNER/MODEL.")
    if not token and get_token() is None:
        raise UsageError("there is no token for the Hugging Face hub.", advice=LOG_IN)


def upload(
    folder: Path, repository: str, *, private: bool | None, token: str | None, commit_message: str
) -> str:
    """Address of a commit with the files of a folder, in a repository that is made if need be.

    Args:
        folder: The folder.
        repository: Name `owner/model`.
        private: True for one that its owner alone can read; None leaves it to the owner's settings.
        token: As in `check_repository`.
        commit_message: Message of the commit.

    Raises:
        UsageError: It is to be private, and a public one is there.
        UploadError: The hub can't be reached, or refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"{repository} is on the hub already, where everyone can read it. Nothing was uploaded.",
                advice="Take another name, or say that it may be public.",
            )
        made = api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=commit_message)
    except HfHubHTTPError as error:
        raise _refused(repository, error) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise UploadError(
            f"{repository} can't be uploaded, as the hub ({api.endpoint}) can't be reached: {reason(error)}",
            advice="Try again where there is a network.",
        ) from error
    except (OSError, RuntimeError) as error:  # of one of the large files
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(repository, error.__cause__) from error
        raise UploadError(
            f"{repository} was not uploaded whole: {reason(error)}",
            advice="Try again; what has arrived is not sent twice.",
        ) from error
    return str(made.commit_url)


def _refused(repository: str, error: Any) -> UploadError:
    """The refusal of an HfHubHTTPError, with what to do."""
    status, owner = error.response.status_code, repository.split("/")[0]
    if status == NOT_KNOWN:
        return UploadError(
            f"{repository} can't be uploaded: the hub does not accept the token (401).", advice=LOG_IN
        )
    if status == NO_RIGHT:
        return UploadError(
            f"{repository} can't be uploaded: the token has no right to write to {owner} (403).",
            advice=f"Take a token with the right to write, of {owner} or of a member; or another name.",
        )
    told = error.server_message or reason(error)
    return UploadError(f"{repository} can't be uploaded: the hub answers {status}: {told}")
