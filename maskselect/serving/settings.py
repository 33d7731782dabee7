"""The limits of a server, and the errors that clients see."""

import ipaddress
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What a server accepts.

    Attributes:
        host: address that it is bound to.
        port: port; 0 lets the system choose one.
        token: secret that requests state; None for none, which only a loopback address allows.
        upload_mib: largest request body in MiB.
        megapixels: largest picture in millions of pixels.
        frames: most frames of a clip.
        seconds: longest time of a request about a picture, waiting included.
        clip_seconds: the same for a prompt about a clip.
        waiting: most requests that wait for the model.
        batch: most prompts that are answered in one call of the model.
        pictures: number of pictures whose readings are kept.
        prompts: most prompts of a request.

    Raises:
        ValueError: there is no token although other machines can reach the host.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    upload_mib: float = 32
    megapixels: float = 50
    frames: int = 300
    seconds: float = 120
    clip_seconds: float = 900
    waiting: int = 64
    batch: int = 16
    pictures: int = 8
    prompts: int = 8

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise ValueError("the token is too short or not plain text; expected at least 8 printable ASCII characters")
        if self.token is None and not self.is_local:
            raise ValueError(
                f"--host {self.host} can be reached by other machines, so a token is needed; set the environment "
                "variable MASKSELECT_TOKEN to a secret of at least 8 characters"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the host."""
        return is_loopback(self.host)

    @property
    def upload_bytes(self) -> int:
        """Largest request body."""
        return int(self.upload_mib * MIB)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


class Refusal(Exception):  # noqa: N818  not every refusal is an error of the server
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        code: short name for programs, such as "too_large".
        message: one sentence for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def bad_input(error: Exception) -> Refusal:
    """The refusal for an input that the model or a reader does not accept."""
    return Refusal(400, "bad_input", " ".join(str(error).split()))
