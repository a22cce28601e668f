"""A conversation as the tokens of a prompt: the harmony format of gpt-oss (openai/harmony, docs/format.md).

    <|start|>{role}<|channel|>{channel}<|message|>{content}<|end|>

Only this module writes special tokens, as ids; all text goes through `Tokenizer.encode`, so a user who writes
`<|start|>` has written nine characters.  Text is encoded in the same pieces as by openai-harmony, so that
token boundaries agree.

What the history keeps:

* A stored answer ends with `<|end|>`; a call with `<|call|>`.
* The chain of thought is kept until an answer follows it: all of it in a loop of calls, none of it once
  `final` was reached.
* Calls, results and preambles stay.
* What we sampled is replayed token by token (replay.py); any other call is written as the model would have,
  with the recipient after the channel.
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

MAX_REMEMBERED = 1 << 16
"""Characters of a system or developer message whose tokens are kept for the next request."""


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
    """Writes prompts.  Safe to share between threads: a prompt of 100,000 tokens takes a third of a second.

    stop_tokens  end generation.  `<|end|>` is none of them: it closes a message, and the model goes on
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if missing := [token.value for token in _Special if token.value not in tokenizer.specials]:
            raise TokenizerError(f"this tokenizer cannot speak harmony: it lacks {', '.join(missing)}")
        self.tokenizer = tokenizer
        self._headers = HeaderTokens(tokenizer)
        self._replay = Replay(tokenizer)
        self._ids = {token: tokenizer.special(token.value) for token in _Special}
        self.stop_tokens = frozenset({self._ids[RETURN], self._ids[CALL]})
        self._remembered = lru_cache(maxsize=64)(lambda text: tuple(tokenizer.encode(text)))

    @property
    def end_of_text(self) -> int:
        """Ends a document of raw text, and begins the next."""
        return self.tokenizer.special("<|endoftext|>")

    def render(
        self, conversation: Conversation, replay: Mapping[str, Sequence[int]] | None = None
    ) -> list[int]:
        """The prompt, up to where the assistant begins.

        replay  call id → the tokens sampled for the action that ended in this call: from after
                `<|start|>assistant` to `<|call|>`, its chain of thought included.  They are used where the
                message does not know itself what was sampled
        raises  ConversationError
        """
        messages = conversation.messages
        instructions = ""
        history = list(enumerate(messages))
        if messages and messages[0].role in ("system", "developer"):
            instructions = messages[0].content or ""
            del history[0]

        prompt = self._tokens(START, "system", MESSAGE, self._repeated(_system_text(conversation)), END)
        if text := _developer_text(instructions, conversation):
            prompt += self._developer(text)
        last_final = max((i for i, message in history if message.is_final), default=-1)
        calls: dict[str, Call] = {}
        for role, group in groupby(history, key=lambda each: each[1].role):
            if role == "assistant":
                said = [(message, i > last_final) for i, message in group]
                for part in self._replay.parts(said, replay or {}):
                    prompt += self._part(part)
                calls.update((call.id, call) for message, _ in said for call in message.calls)
                continue
            for i, message in group:
                prompt += self._heard(i, message, calls)

        prompt += self._tokens(START, "assistant")
        if conversation.prefilled:
            prompt += self._tokens(CHANNEL, "final", MESSAGE)
        return prompt

    def sampled_parts(self, tokens: Sequence[int]) -> list[Part]:
        """What was sampled, message by message, up to what is no proper harmony."""
        return self._replay.split(tokens)

    # -- messages ------------------------------------------------------------------------------------------

    def _developer(self, text: str) -> list[int]:
        return self._tokens(START, "developer", MESSAGE, self._repeated(text), END)

    def _said(self, channel: str, text: str) -> list[int]:
        """A message of the assistant to the user, or to itself."""
        return self._tokens(START, "assistant", CHANNEL, channel, MESSAGE, text, END)

    def _heard(self, i: int, message: Message, calls: Mapping[str, Call]) -> list[int]:
        """Message `i` of the history, which is not the assistant's.  calls: those before it, by id."""
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
        """A message of the assistant, as it was sampled or as the model would write it."""
        if part.kind == "analysis" and not part.thinking:
            return []
        if not part.tokens:
            if part.call is None:
                return self._said(part.kind, part.text)
            return self._tokens(START, "assistant", self._headers.call(part.call), part.text, CALL)
        ends = {self._ids[END], self._ids[RETURN], self._ids[CALL]}
        body = part.tokens[:-1] if part.tokens[-1] in ends else part.tokens
        return [*body, self._ids[END if part.call is None else CALL]]

    # -- tokens --------------------------------------------------------------------------------------------

    def _repeated(self, text: str) -> Sequence[int]:
        """The tokens of a system or developer message: the same in many requests, and tools can be long."""
        return self._remembered(text) if len(text) <= MAX_REMEMBERED else self.tokenizer.encode(text)

    def _tokens(self, *parts: _Special | str | Sequence[int]) -> list[int]:
        """The parts laid end to end: special tokens, texts, and tokens."""
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
    """Who the model is, when it is, how much to think, and which channels there are."""
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
    """Instructions, tools and the schema of the answer; empty sections are left out."""
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
    """The call whose result message `i` is: by its id, or, without one, by the function's name."""
    if message.call_id is None and message.name:
        return Call("", message.name, "")
    if message.call_id is not None and message.call_id in calls:
        return calls[message.call_id]
    known = ", ".join(calls) or "none"
    raise ConversationError(
        f"tool_call_id {message.call_id!r} answers no call before it; calls so far: {known}",
        param=f"messages[{i}].tool_call_id",
    )
