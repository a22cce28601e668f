"""Renders a conversation to the tokens of a prompt, in the harmony format (openai/harmony, docs/format.md).

    <|start|>{role}<|channel|>{channel}<|message|>{content}<|end|>

Only this module writes special tokens, as ids.  All text goes through `Tokenizer.encode`, so `<|start|>` in a
user's text is nine ordinary characters.  Text is encoded in the same pieces as by openai-harmony, so that
token boundaries agree.

What the prompt contains of the history:

* A stored answer ends with `<|end|>`; a call ends with `<|call|>`.
* Chains of thought are kept until an answer follows: in a loop of calls all of them, after a `final` message
  none.
* Calls, results and preambles are kept.
* Sampled tokens are replayed (replay.py).  Any other call is written as the model would have written it, with
  the recipient after the channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from itertools import groupby

from language.harmony.builtin import builtin_tools
from language.harmony.header_tokens import HeaderTokens
from language.harmony.messages import Call, Conversation, ConversationError, Message, ResponseFormat
from language.harmony.replay import Part, Replay
from language.harmony.typescript import comment, function_tools, literal
from language.tokenizer import Tokenizer, TokenizerError

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
KNOWLEDGE_CUTOFF = "2024-06"

MAX_CACHED = 1 << 16
"""Characters; the tokens of a longer system or developer message are not cached."""


class _Special(Enum):
    START = "<|start|>"
    CHANNEL = "<|channel|>"
    CONSTRAIN = "<|constrain|>"
    MESSAGE = "<|message|>"
    END = "<|end|>"
    RETURN = "<|return|>"
    CALL = "<|call|>"


START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL = _Special


class Renderer:
    """Renders prompts.  Safe to share between threads.  100,000 tokens take a third of a second.

    stop_tokens  end generation.  Not `<|end|>`, which ends only a message
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if missing := [token.value for token in _Special if token.value not in tokenizer.specials]:
            raise TokenizerError(
                f"this tokenizer lacks special tokens of the harmony format: {', '.join(missing)}"
            )
        self.tokenizer = tokenizer
        self._headers = HeaderTokens(tokenizer)
        self._replay = Replay(tokenizer)
        self._ids = {token: tokenizer.special(token.value) for token in _Special}
        self.stop_tokens = frozenset({self._ids[RETURN], self._ids[CALL]})
        self._cached_encode = lru_cache(maxsize=64)(lambda text: tuple(tokenizer.encode(text)))

    @property
    def end_of_text(self) -> int:
        """The token between two documents of raw text."""
        return self.tokenizer.special("<|endoftext|>")

    def render(
        self, conversation: Conversation, replay: Mapping[str, Sequence[int]] | None = None
    ) -> list[int]:
        """The prompt, up to the beginning of the assistant's message.

        replay  call id → the tokens that were sampled for this call: after `<|start|>assistant` up to
                `<|call|>`, including the chain of thought.  Used for messages without `sampled`
        raises  ConversationError
        """
        messages = conversation.messages
        instructions = ""
        history = list(enumerate(messages))
        if messages and messages[0].role in ("system", "developer"):
            instructions = messages[0].content or ""
            del history[0]

        prompt = self._tokens(START, "system", MESSAGE, self._encode_cached(_system_text(conversation)), END)
        if text := _developer_text(instructions, conversation):
            prompt += self._developer(text)
        last_final = max((i for i, message in history if message.is_final), default=-1)
        calls: dict[str, Call] = {}
        for role, group in groupby(history, key=lambda each: each[1].role):
            if role == "assistant":
                flagged = [(message, i > last_final) for i, message in group]
                for part in self._replay.parts(flagged, replay or {}):
                    prompt += self._part(part)
                calls.update((call.id, call) for message, _ in flagged for call in message.calls)
                continue
            for i, message in group:
                prompt += self._other_message(i, message, calls)

        prompt += self._tokens(START, "assistant")
        return prompt + self._begun(conversation)

    def sampled_parts(self, tokens: Sequence[int]) -> list[Part]:
        """The messages of a sample, up to the first that is not valid harmony."""
        return self._replay.split(tokens)

    def _begun(self, conversation: Conversation) -> list[int]:
        """The beginning of the answer that the prompt contains."""
        prefill = conversation.prefill
        begun: list[int] = []
        if prefill.reasoning:
            begun += self._tokens(CHANNEL, "analysis", MESSAGE, prefill.reasoning)
        if conversation.prefilled:
            begun += self._tokens(END, START, "assistant") if begun else []
            begun += self._tokens(CHANNEL, "final", MESSAGE, prefill.content)
        return begun

    # -- messages ------------------------------------------------------------------------------------------

    def _developer(self, text: str) -> list[int]:
        return self._tokens(START, "developer", MESSAGE, self._encode_cached(text), END)

    def _assistant_message(self, channel: str, text: str) -> list[int]:
        """A message of the assistant that calls no tool."""
        return self._tokens(START, "assistant", CHANNEL, channel, MESSAGE, text, END)

    def _other_message(self, i: int, message: Message, calls: Mapping[str, Call]) -> list[int]:
        """Message `i` of the history, from another role.  calls: those before it, by id."""
        content = message.content or ""
        if message.role == "tool":
            call = _answered(i, message, calls)
            header = (START, call.recipient, " to=assistant", CHANNEL, call.channel, MESSAGE)
            return self._tokens(*header, content, END)
        if message.role == "user":
            author = f":{message.name}" if message.name else ""
            return self._tokens(START, "user", author, MESSAGE, content, END)
        return self._developer(_instructions(content)) if content else []

    def _part(self, part: Part) -> list[int]:
        """A message of the assistant, as sampled or as the model would have written it."""
        if part.kind == "analysis" and not part.thinking:
            return []
        if not part.tokens:
            if part.call is None:
                return self._assistant_message(part.kind, part.text)
            return self._tokens(START, "assistant", self._headers.call(part.call), part.text, CALL)
        ends = {self._ids[END], self._ids[RETURN], self._ids[CALL]}
        body = part.tokens[:-1] if part.tokens[-1] in ends else part.tokens
        return [*body, self._ids[END if part.call is None else CALL]]

    # -- tokens --------------------------------------------------------------------------------------------

    def _encode_cached(self, text: str) -> Sequence[int]:
        """The tokens of a system or developer message, cached: many requests have the same long one."""
        return self._cached_encode(text) if len(text) <= MAX_CACHED else self.tokenizer.encode(text)

    def _tokens(self, *parts: _Special | str | Sequence[int]) -> list[int]:
        """The tokens of all parts: special tokens, texts and token sequences."""
        tokens: list[int] = []
        for part in parts:
            match part:
                case _Special():
                    tokens.append(self._ids[part])
                case str():
                    tokens += self.tokenizer.encode(part)
                case _:
                    tokens += part
        return tokens


def _system_text(conversation: Conversation) -> str:
    """Identity, date, reasoning effort and channels."""
    effort = (
        "low" if conversation.effort == "none" else conversation.effort
    )  # "none" was never trained; see `render`
    builtin = builtin_tools(conversation.tools)
    builtin = f"{builtin}\n\n" if builtin else ""
    text = (
        f"{IDENTITY}\nKnowledge cutoff: {KNOWLEDGE_CUTOFF}\nCurrent date: {conversation.date}\n\n"
        f"Reasoning: {effort}\n\n{builtin}"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message."
    )
    if spaces := dict.fromkeys(
        tool.namespace or "functions" for tool in conversation.tools if not tool.builtin
    ):
        named = ", ".join(f"'{space}'" for space in spaces)
        text += f"\nCalls to these tools must go to the commentary channel: {named}."
    return text


def _developer_text(instructions: str, conversation: Conversation) -> str:
    """Instructions, tools and the schema of the answer; empty sections are omitted."""
    sections = []
    if instructions:
        sections.append(_instructions(instructions))
    try:
        field = "tools"
        if tools := [tool for tool in conversation.tools if not tool.builtin]:
            sections.append(function_tools(tools, conversation.namespaces))
        field = "response_format"
        if conversation.response_format:
            sections.append(_response_format(conversation.response_format))
    except (RecursionError, ValueError):  # of json.dumps; an integer may have too many digits to print
        message = f"a JSON schema in {field} is nested too deeply, or holds too large a number"
        raise ConversationError(message, field) from None
    return "\n\n".join(sections)


def _instructions(text: str) -> str:
    return f"# Instructions\n\n{text}"


def _response_format(format: ResponseFormat) -> str:
    description = comment(format.description or "")
    return f"# Response Formats\n\n## {format.name}\n\n{description}{literal(format.schema)}"


def _answered(i: int, message: Message, calls: Mapping[str, Call]) -> Call:
    """The call that message `i` answers: found by id, or without an id by the function's name."""
    if message.call_id is None and message.name:
        return Call("", message.name, "")
    if message.call_id is not None and message.call_id in calls:
        return calls[message.call_id]
    known = ", ".join(calls) or "none"
    raise ConversationError(
        f"tool_call_id {message.call_id!r} answers no call before it; calls so far: {known}",
        param=f"messages[{i}].tool_call_id",
    )
