"""Side channels: what task and reply carry beside model and update, as named attachments.

An attachment is bytes under the channel's name. Nobody believes them: a channel states how many
bytes a reply's may have, and judges them before the reply counts. One channel is one module; it is
entered in ``side_channels`` below, and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fedsense_core.config import Config
from fedsense_core.errors import FrameError
from fedsense_core.state import State

Attachments = Mapping[str, bytes]
"""By name of the channel."""


class SideChannel(ABC):
    """The server's end of one channel."""

    name: ClassVar[str]
    carried_by: ClassVar[Literal["handshake", "round"]]
    """Which answers of a client carry it: that to the handshake, or that to each round's task."""
    limit: int
    """Most bytes of an attachment that a client may send."""

    def for_handshake(self) -> Attachments:
        """Return what the question to a new client carries; nothing where the channel only
        listens."""
        return {}

    def for_task(self, site: str) -> Attachments:
        """Return what the next task of ``site`` carries; nothing where the channel only listens."""
        return {}

    @abstractmethod
    def judge(self, attachment: bytes, examples: float) -> Any:
        """Return what an attachment says. Raises ValueError for what no honest client can have
        sent.

        ``examples`` is what the same reply says it trained on; in a handshake the chips that the
        site says it has.
        """

    @abstractmethod
    def accept(self, judged: Mapping[str, Any]) -> None:
        """Take, by site, what the replies that count have said."""

    def told(self, site: str) -> list[str]:
        """Return what a person at the server should know of what a site has said."""
        return []

    def drop(self, site: str) -> None:  # noqa: B027  most channels have nothing to forget
        """Forget what a site has said: it takes no part any more."""

    def skip_round(self) -> None:  # noqa: B027  most channels have nothing to forget
        """Note that a round did not count."""

    def state_dict(self) -> State:
        """Return what a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  see state_dict
        """Go on from a checkpoint."""


def side_channels(config: Config) -> tuple[SideChannel, ...]:
    """Return the channels that a run opens."""
    from fedsense_core.data.chips.sensor_statistics import SharedStatistics
    from fedsense_core.ssl.federated import EmbeddingSums

    found: list[SideChannel] = []
    if config.data.share_statistics:
        found.append(SharedStatistics(config))
    if config.train.federated_sigreg:
        found.append(EmbeddingSums(config))
    return tuple(found)


def judge_all(
    channels: tuple[SideChannel, ...], carried_by: str, attachments: Attachments, examples: float = 0.0
) -> dict[str, Any]:
    """Return what each channel makes of a client's attachments, by the channel's name.

    Raises FrameError for an attachment that is too long, that says what cannot be, or that nobody
    asked for.
    """
    listening = {channel.name: channel for channel in channels if channel.carried_by == carried_by}
    if unknown := sorted(attachments.keys() - listening.keys()):
        raise FrameError(f"it carries {unknown[0][:60]!r}, which nobody asked for")
    judged = {}
    for name, channel in listening.items():
        attachment = attachments.get(name, b"")
        if len(attachment) > channel.limit:
            raise FrameError(f"{name} has {len(attachment)} bytes, at most {channel.limit} are taken")
        try:
            judged[name] = channel.judge(attachment, examples)
        except ValueError as error:
            raise FrameError(f"{name}: {error}") from None
    return judged


def attachments_for(channels: tuple[SideChannel, ...], site: str) -> Attachments:
    """Return what the next task of ``site`` carries, of all channels."""
    return {name: attachment for channel in channels for name, attachment in channel.for_task(site).items()}


def accept_all(channels: tuple[SideChannel, ...], said: Mapping[str, Mapping[str, Any]]) -> None:
    """Hand each channel what the replies that count have said: by site, then by channel."""
    for channel in channels:
        if channel.carried_by == "round":
            channel.accept({site: judged[channel.name] for site, judged in said.items()})
