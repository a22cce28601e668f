"""Parses the header of a message that the model samples.

    [assistant][ to={recipient}]<|channel|>{channel}[ to={recipient}][ <|constrain|>{type}]<|message|>

Malformed headers are parsed as what they most likely mean, and their deviations from the format are counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Channel = Literal["analysis", "commentary", "final"]

MAX_HEADER = 512
"""Maximum characters; a longer text, or one with a line break, is not a header."""

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
class ParsedHeader:
    """A header's parts.

    channel       None if it is missing or unknown
    recipient     the tool that is called, as the model wrote it; None if the recipient is no tool
    foreign_role  whether the message claims another role than the assistant's
    deviations    number of deviations from the format; a missing channel is one
    """

    channel: Channel | None
    recipient: str | None
    foreign_role: bool
    deviations: int


@dataclass(slots=True, eq=False)
class SampledHeader:
    """The text of a header so far, by section.  None: the section has not begun.

    given  whether the prompt already contains the role
    """

    given: bool = False
    role: str = ""
    channel: str | None = None
    type: str | None = None

    def add(self, text: str) -> None:
        """Append text to the latest section."""
        if self.type is not None:
            self.type += text
        elif self.channel is not None:
            self.channel += text
        else:
            self.role += text

    @property
    def plausible(self) -> bool:
        """Whether this can still become a header."""
        text = self.role + (self.channel or "") + (self.type or "")
        if len(text) > MAX_HEADER or "\n" in text:
            return False
        if self.channel is not None or self.type is not None:
            return True
        role = _ROLE.match(self.role)
        rest = self.role[role.end() :] if role else self.role
        return any(word.startswith(rest) for word in ("assistant", *_OTHERS, "to="))

    def take_body(self) -> str:
        """Remove and return the text that belongs to the body, as if `<|message|>` had come before it.

        If the role is given, all text belongs to the body, unless it names a recipient or may begin to.
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

    def parse(self) -> ParsedHeader:
        role, channel = self.role, self.channel or ""
        speaker = role.partition("to=")[0].partition(":")[0].strip()
        foreign_role = speaker.startswith(_OTHERS)
        deviations = int(speaker != ("" if self.given else "assistant"))

        recipients = [*_RECIPIENT.findall(role), *_RECIPIENT.findall(channel)]
        deviations += len(recipients) > 1
        recipient = _TYPE.sub("", recipients[-1]) if recipients and not foreign_role else ""
        if recipient.removeprefix("functions.") in ("", "assistant", "user", "all"):
            recipient = ""

        known = _CHANNEL.match(channel)
        rest = channel.partition("to=")[0][known.end() if known else 0 :]
        deviations += known is None or bool(rest.strip())
        return ParsedHeader(_named(known), recipient or None, foreign_role, deviations)


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
