"""The header of a message the model says, and what it means.

    [assistant][ to={recipient}]<|channel|>{channel}[ to={recipient}][ <|constrain|>{type}]<|message|>

Headers are read for what they most likely mean; what is strange about them is counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Channel = Literal["analysis", "commentary", "final"]

MAX_HEADER = 512
"""Characters.  What is longer, or has a second line, is no header."""

_OTHERS = ("user", "system", "developer", "tool", "functions.")
_SPEAKER = r"\s*(?:assistant|user|system|developer|tool|functions\.\S*)*(?::\S*)?"
_ROLE = re.compile(_SPEAKER + r"\s*(?:to=.*)?")
_CHANNEL = re.compile(r"\s*(analysis|commentary|final)")
_RECIPIENT = re.compile(r"to=\s*(.*?)\s*(?=to=|$)", re.DOTALL)
_TYPE = re.compile(r"\s+(?:json|code)$")
_ADDRESS = r"(?:\s*to=\S*(?:\s+(?:json|code)\b)?)?"
_ROLE_SECTION = re.compile(_SPEAKER + _ADDRESS)
_CHANNEL_SECTION = re.compile(r"\s*(?:analysis|commentary|final)?" + _ADDRESS)
_TYPE_SECTION = re.compile(r"\s*\w*")


@dataclass(frozen=True, slots=True)
class Heading:
    """What a header means.

    channel    None if it is missing or unknown
    recipient  who is called, as the model wrote it; None for nobody, or for those who are no tools
    imagined   the message is in the role of someone else
    oddities   departures from the format; a missing channel is one
    """

    channel: Channel | None
    recipient: str | None
    imagined: bool
    oddities: int


@dataclass(slots=True, eq=False)
class Header:
    """The text of a header so far, in its sections.  None: the section has not begun.

    given  the role stands in the prompt already
    """

    given: bool = False
    role: str = ""
    channel: str | None = None
    type: str | None = None

    def add(self, text: str) -> None:
        """More text of the section that began last."""
        if self.type is not None:
            self.type += text
        elif self.channel is not None:
            self.channel += text
        else:
            self.role += text

    @property
    def plausible(self) -> bool:
        """Whether this may still become a header."""
        text = self.role + (self.channel or "") + (self.type or "")
        if len(text) > MAX_HEADER or "\n" in text:
            return False
        if self.channel is not None or self.type is not None:
            return True
        role = _ROLE.match(self.role)
        rest = self.role[role.end() :] if role else self.role
        return any(word.startswith(rest) for word in ("assistant", *_OTHERS, "to="))

    def take_body(self) -> str:
        """Cut off the text that is no header's, as if `<|message|>` had stood before it.

        Where the role is given, any text is such text, unless it names a recipient, or may begin to.
        """
        if self.type is not None:
            self.type, body = _cut(_TYPE_SECTION, self.type)
        elif self.channel is not None:
            self.channel, body = _cut(_CHANNEL_SECTION, self.channel)
        else:
            role, body = _cut(_ROLE_SECTION, self.role)
            if self.given and "to=" not in role:
                role, body = "", "" if " to=".startswith(self.role) else self.role
            self.role = role
        return body

    def read(self) -> Heading:
        role, channel = self.role, self.channel or ""
        speaker = role.partition("to=")[0].partition(":")[0].strip()
        imagined = speaker.startswith(_OTHERS)
        oddities = int(speaker != ("" if self.given else "assistant"))

        recipients = [*_RECIPIENT.findall(role), *_RECIPIENT.findall(channel)]
        oddities += len(recipients) > 1
        recipient = _TYPE.sub("", recipients[-1]) if recipients and not imagined else ""
        if recipient.removeprefix("functions.") in ("", "assistant", "user", "all"):
            recipient = ""

        known = _CHANNEL.match(channel)
        rest = channel.partition("to=")[0][known.end() if known else 0 :]
        oddities += known is None or bool(rest.strip())
        return Heading(_named(known), recipient or None, imagined, oddities)


def _cut(section: re.Pattern[str], text: str) -> tuple[str, str]:
    match = section.match(text)
    end = match.end() if match else 0
    return text[:end], text[end:]


def _named(match: re.Match[str] | None) -> Channel | None:
    match match and match[1]:
        case "analysis" | "commentary" | "final" as channel:
            return channel
        case _:
            return None
