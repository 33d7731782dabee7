"""Downloads from and uploads to the Hugging Face hub. Only this module accesses it directly.

Endpoint, authentication and cache follow huggingface_hub: HF_ENDPOINT, HF_TOKEN or `hf auth login`, HF_HOME,
HF_HUB_OFFLINE. Cached files need no network.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Base class of the errors of its HTTP client, whose library depends on the version.
from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    filter_repo_objects,
    validate_repo_id,
)

MODEL_CARD = "README.md"
_FAILURES = (OSError, ClientError)
_REFUSED = (401, 403)


@dataclass(frozen=True)
class Repository:
    """A model repository.

    Attributes:
        name: `org/name`.
        revision: branch, tag or commit; None for the main branch.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Parse `org/name` or `org/name@revision`, with or without `hf://`. Raises ValueError for other text."""
        name, at, revision = text.removeprefix("hf://").partition("@")
        try:
            validate_repo_id(name)
        except HFValidationError:
            name = ""
        if name.count("/") != 1 or (at and not revision):
            raise ValueError(f"{text!r} names no repository; expected hf://org/name or hf://org/name@revision")
        return cls(name, revision or None)

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")


def fetch(repository: Repository, patterns: Sequence[str], excluded: Sequence[str] = ()) -> Path:
    """Download files of one commit of a repository, or take them from the cache.

    Args:
        repository: the repository.
        patterns, excluded: patterns of paths to download and not to download, in which `*` also matches slashes.

    Returns:
        The folder with the files, named after the commit.

    Raises:
        FileNotFoundError: neither the hub nor the cache has the files; with the reason.
    """
    name, revision = repository.name, repository.revision
    try:
        with _bars_on_terminal():
            return Path(
                snapshot_download(
                    name, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(excluded)
                )
            )
    except _FAILURES as error:
        command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        raise FileNotFoundError(
            f"{repository} could not be fetched: {_reason(error, 'read it')}; by hand: {command}"
        ) from error


@dataclass(frozen=True)
class Listing:
    """What the hub states about a repository.

    Attributes:
        commit: the commit of the revision.
        licence: as in its model card; "" if it states none.
        size: bytes of the files that match.
    """

    commit: str
    licence: str
    size: int


def describe(repository: Repository, patterns: Sequence[str], excluded: Sequence[str] = ()) -> Listing:
    """Ask the hub for the commit, the licence and the size of files, before anything is downloaded.

    Args:
        repository: the repository.
        patterns, excluded: as in `fetch`.

    Raises:
        FileNotFoundError: the hub cannot be reached, or has no such repository; with the reason.
    """
    try:
        info = HfApi().model_info(repository.name, revision=repository.revision, files_metadata=True)
    except _FAILURES as error:
        raise FileNotFoundError(f"{repository} could not be read: {_reason(error, 'read it')}") from error
    files = filter_repo_objects(
        info.siblings or [],
        allow_patterns=list(patterns),
        ignore_patterns=list(excluded),
        key=lambda file: file.rfilename,
    )
    licence = getattr(info.card_data, "license", None)
    return Listing(str(info.sha), licence if isinstance(licence, str) else "", sum(file.size or 0 for file in files))


def upload(repository: Repository, files: Mapping[str, Path | bytes], private: bool | None, message: str) -> str:
    """Upload files as one commit, and create the repository and the branch if they do not exist.

    Args:
        repository: the repository.
        files: content or local path by path in the repository. The hub validates the model card first.
        private: whether a new repository is private; None for the owner's default.
        message: commit message.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: the model card has an error, or the repository is public but should be private, or it holds weights
            of another name.
        PermissionError: the hub refuses.
        OSError: the hub cannot be reached.
    """
    api, branch = HfApi(), repository.revision
    with _upload_errors(repository):
        if isinstance(readme := files.get(MODEL_CARD), bytes):
            ModelCard(readme.decode()).validate()
        api.create_repo(repository.name, private=private, exist_ok=True)
        if branch is not None and not branch.startswith("refs/"):
            api.create_branch(repository.name, branch=branch, exist_ok=True)
        info = api.model_info(repository.name, revision=branch)
    if private and info.private is False:
        raise ValueError(f"{repository} is there already and is public; expected a private repository, or a new one")
    others = _weights(sibling.rfilename for sibling in info.siblings or []) - _weights(files)
    if others:
        raise ValueError(f"{repository} holds {sorted(others)[0]} already; expected a repository for one checkpoint")
    additions = [CommitOperationAdd(path, source) for path, source in files.items()]
    with _upload_errors(repository), _bars_on_terminal():
        commit = api.create_commit(
            repository.name, additions, commit_message=message, revision=branch, parent_commit=info.sha
        )
    return commit.commit_url


def _weights(paths: Iterable[str]) -> set[str]:
    """The safetensors files in the top folder."""
    return {path for path in paths if "/" not in path and PurePosixPath(path).suffix == ".safetensors"}


@contextmanager
def _upload_errors(repository: Repository) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        kind = PermissionError if status in _REFUSED else OSError
        raise kind(f"{repository} could not be written to: {_reason(error, 'write to it')}") from error
    except ValueError as error:
        raise ValueError(f"the hub refused the upload to {repository}: {' '.join(str(error).split())}") from error


@contextmanager
def _bars_on_terminal() -> Iterator[None]:
    """Disable progress bars if standard error is not a terminal, so that logs hold errors only."""
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()


def _reason(error: BaseException, wish: str) -> str:
    """The reason of an error. `wish` is the action that failed."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the error of the hub says more than "not in the cache"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, GatedRepoError):
        return "it is gated; ask for access on its page, then log in with: hf auth login"
    if isinstance(error, RepositoryNotFoundError) and wish == "read it":
        return "there is no such repository, or it is private; then log in with: hf auth login"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in _REFUSED:
            return f"the hub does not let you {wish} (status {status}); log in with a token that may: hf auth login"
        message = " ".join((error.server_message or "").split())
        return f"the hub answered with status {status}" + (f", {message}" if message else "")
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the cache does not hold it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"the hub cannot be reached ({type(error).__name__})"
