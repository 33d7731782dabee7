"""The Hugging Face hub, for which this is the only door: files of a repository, and files into one.

Where the hub is, who asks, and where files are kept follow huggingface_hub: HF_ENDPOINT, HF_TOKEN or `hf auth login`,
HF_HOME, HF_HUB_OFFLINE. What has been fetched once is found again without a network.
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

# The root of what its HTTP client raises, whichever client the installed version has.
from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

MODEL_CARD = "README.md"
_FAILURES = (OSError, ClientError)
_REFUSED = (401, 403)


@dataclass(frozen=True)
class Repository:
    """A repository of models. name: `org/name`.  revision: branch, tag or commit; None for the main branch."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Of `hf://org/name` or `hf://org/name@revision`, with or without `hf://`. Raises ValueError for others."""
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


def fetch(repository: Repository, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """A folder with those files of a repository that are wanted, of one commit, after which it is called.

    wanted, unwanted: patterns of paths, in which `*` stands for slashes too.
    Raises FileNotFoundError with the reason when they can be had neither from the hub nor from its cache.
    """
    by_hand = f"hf download {repository.name}" + (f" --revision {repository.revision}" if repository.revision else "")
    allow, ignore = list(wanted), list(unwanted)
    try:
        with _bars_for_people():
            return Path(
                snapshot_download(
                    repository.name, revision=repository.revision, allow_patterns=allow, ignore_patterns=ignore
                )
            )
    except _FAILURES as error:
        raise FileNotFoundError(
            f"{repository} could not be fetched: {_reason(error, 'read it')}; by hand: {by_hand}"
        ) from error


def upload(repository: Repository, files: Mapping[str, Path | bytes], private: bool | None, message: str) -> str:
    """Files into a repository as one commit, so that they are there all together or not at all; the commit's page.

    The repository and the branch are made where they are not there.
    files: by their paths in the repository; the hub looks the model card over before anything is made.
    private: of a repository that is made; None for the owner's default.

    Raises ValueError when the model card has an error, or the repository is not fit: it should be private and is not,
    or holds weights of another name. PermissionError when the hub refuses, another OSError when it cannot be reached.
    """
    api, branch = HfApi(), repository.revision
    with _failures_told(repository):
        if isinstance(readme := files.get(MODEL_CARD), bytes):
            ModelCard(readme.decode()).validate()
        api.create_repo(repository.name, private=private, exist_ok=True)
        if branch is not None and not branch.startswith("refs/"):
            api.create_branch(repository.name, branch=branch, exist_ok=True)
        there = api.model_info(repository.name, revision=branch)
    if private and there.private is False:
        raise ValueError(f"{repository} is there already and is public; expected a private repository, or a new one")
    others = _weights(sibling.rfilename for sibling in there.siblings or []) - _weights(files)
    if others:
        raise ValueError(f"{repository} holds {sorted(others)[0]} already; expected a repository for one checkpoint")
    additions = [CommitOperationAdd(path, source) for path, source in files.items()]
    with _failures_told(repository), _bars_for_people():
        done = api.create_commit(
            repository.name, additions, commit_message=message, revision=branch, parent_commit=there.sha
        )
    return done.commit_url


def _weights(paths: Iterable[str]) -> set[str]:
    """Those at the top of a repository, where a checkpoint lies."""
    return {path for path in paths if "/" not in path and PurePosixPath(path).suffix == ".safetensors"}


@contextmanager
def _failures_told(repository: Repository) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        kind = PermissionError if status in _REFUSED else OSError
        raise kind(f"{repository} could not be written to: {_reason(error, 'write to it')}") from error
    except ValueError as error:
        raise ValueError(f"the hub refused what was meant for {repository}: {' '.join(str(error).split())}") from error


@contextmanager
def _bars_for_people() -> Iterator[None]:
    """Progress is shown on a terminal only, so that a log, or whoever reads standard error, has the errors alone."""
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()


def _reason(error: BaseException, wish: str) -> str:
    """Why the hub did not do it. wish: what was asked for."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # not in the cache either: why it was not on the hub tells more
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
        said = " ".join((error.server_message or "").split())
        return f"the hub answered with status {status}" + (f", {said}" if said else "")
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the cache does not hold it"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"the hub cannot be reached ({type(error).__name__})"
