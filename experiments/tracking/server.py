"""The W&B server: whether it answers and takes the key, and what it is never told."""

import os
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

if TYPE_CHECKING:
    import wandb

ANSWER = 5.0  # seconds in which the server has to answer at all

# The machine's name, the program and its path, the folder, the packages and the command line are not sent. wandb tries
# again for hours; what tries again here is the next sweep, or `mer sync`.
QUIET = {
    "console": "off",
    "silent": True,
    **dict.fromkeys(("host", "program", "program_relpath", "program_abspath"), ""),
    "disable_git": True,  # mer's commit is in the config; this would be that of the current folder
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "ignore_globs": ("config.yaml", "wandb-summary.json"),  # copies of what the run has: two requests for each run
    **{f"x_{kind}_retry_max": 2 for kind in ("graphql", "file_stream", "file_transfer")},
    **{f"x_{kind}_retry_wait_max_seconds": 1 for kind in ("graphql", "file_stream", "file_transfer")},
}

NO_KEY = (
    "there is no key for Weights & Biases: get one from https://wandb.ai/authorize and give it to `wandb login`, or "
    "set WANDB_API_KEY"
)


class NoKey(ConnectionError):
    """There is no key for the server."""


def connect(settings: "wandb.Settings") -> "wandb.Api":
    """The public API, after a look whether the server answers: wandb itself would try for minutes.

    Raises:
        NoKey: If there is no key.
        ConnectionError: If the server does not answer, or does not take the key.
    """
    import wandb

    server = settings.base_url
    if not (settings.api_key or settings.identity_token_file or _key_in_netrc(server)):
        raise NoKey(NO_KEY)
    try:
        urlopen(server, timeout=ANSWER).close()
    except HTTPError as error:  # an answer, too
        if error.code >= 500:
            raise ConnectionError(f"{server} answers with error {error.code}") from None
    except OSError as error:
        raise ConnectionError(f"{server} does not answer: {reason(error)}") from None
    try:
        return wandb.Api(timeout=20)
    except wandb.errors.AuthenticationError as error:
        raise ConnectionError(f"{server} does not take the key, or is no server of W&B: {reason(error)}") from None


def _key_in_netrc(server: str) -> bool:
    try:
        keys = netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
        return keys.authenticators(urlsplit(server).hostname or "") is not None
    except (OSError, NetrcParseError):
        return False


def without_reports(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which wandb reports its errors to a third party only if the user has said so."""
    return {"WANDB_ERROR_REPORTING": "false", **environment}


def reason(error: BaseException) -> str:
    """What an exception says, in a line."""
    return " ".join((str(error) or type(error).__name__).split())[:300]
