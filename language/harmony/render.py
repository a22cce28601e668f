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
* A call that we sampled is replayed token by token (`replay`); any other is written as the model would have,
  with the recipient after the channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache

from language.harmony.headers import Headers
from language.harmony.messages import Call, Conversation, ConversationError, Message, ResponseFormat
from language.harmony.schema import comment, function_tools, literal
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
        self._headers = Headers(tokenizer)
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
                `<|start|>assistant` to `<|call|>`, its chain of thought included.  They are used unless the
                client changed the arguments; their chain of thought where the client did not send its own
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
        last_final = max((i for i, message in history if _is_final(message)), default=-1)
        names: dict[str, str] = {}
        for i, message in history:
            if message.role == "assistant":
                prompt += self._assistant(message, i > last_final, replay or {})
                names.update((call.id, call.name) for call in message.calls)
            elif message.role == "tool":
                tool = f"functions.{_tool_name(i, message, names)}"
                header = (START, tool, " to=assistant", CHANNEL, "commentary", MESSAGE)
                prompt += self._tokens(*header, message.content or "", END)
            elif message.role == "user":
                author = f":{message.name}" if message.name else ""
                prompt += self._tokens(START, "user", author, MESSAGE, message.content or "", END)
            elif message.content:
                prompt += self._developer(_instructions(message.content))

        prompt += self._tokens(START, "assistant")
        if conversation.prefilled:
            prompt += self._tokens(CHANNEL, "final", MESSAGE)
        return prompt

    # -- messages ------------------------------------------------------------------------------------------

    def _developer(self, text: str) -> list[int]:
        return self._tokens(START, "developer", MESSAGE, self._repeated(text), END)

    def _said(self, channel: str, text: str) -> list[int]:
        """A message of the assistant to the user, or to itself."""
        return self._tokens(START, "assistant", CHANNEL, channel, MESSAGE, text, END)

    def _assistant(self, message: Message, thinking: bool, replay: Mapping[str, Sequence[int]]) -> list[int]:
        """One message of the history.  `thinking`: no answer has followed; its chain of thought is kept."""
        if _is_final(message):
            return self._said("final", message.content or "")
        prompt: list[int] = []
        recall = thinking and not message.reasoning
        sampled = [self._sampled(call, replay) for call in message.calls]
        if not (recall and sampled and sampled[0]):
            if message.reasoning and thinking:
                prompt += self._said("analysis", message.reasoning)
            if message.content:
                prompt += self._said("commentary", message.content)
        for call, tokens in zip(message.calls, sampled, strict=True):
            if not tokens:
                prompt += self._written(call)
            elif recall:
                prompt += tokens
            else:
                prompt += tokens[_last(self._ids[START], tokens) :]
        return prompt

    def _written(self, call: Call) -> list[int]:
        """A call as the model writes it: the recipient after the channel."""
        return self._tokens(START, "assistant", self._headers.call(call.name), call.arguments, CALL)

    def _sampled(self, call: Call, replay: Mapping[str, Sequence[int]]) -> list[int]:
        """All that was sampled for an action, from `<|start|>` on; nothing if unknown, or changed since."""
        tokens = list(replay.get(call.id, ()))
        start, message, end = self._ids[START], self._ids[MESSAGE], self._ids[CALL]
        if not tokens or tokens[-1] != end or message not in tokens:
            return []
        if self.tokenizer.decode(tokens[_last(message, tokens) + 1 : -1]) != call.arguments:
            return []
        return tokens if tokens[0] == start else [*self._tokens(START, "assistant"), *tokens]

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
    text = (
        f"{IDENTITY}\nKnowledge cutoff: {KNOWLEDGE_CUTOFF}\nCurrent date: {conversation.date}\n\n"
        f"Reasoning: {effort}\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message."
    )
    if conversation.tools:
        text += "\nCalls to these tools must go to the commentary channel: 'functions'."
    return text


def _developer_text(instructions: str, conversation: Conversation) -> str:
    """Instructions, tools and the schema of the answer; empty sections are left out."""
    sections = []
    if instructions:
        sections.append(_instructions(instructions))
    try:
        field = "tools"
        if conversation.tools:
            sections.append(function_tools(conversation.tools))
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


def _is_final(message: Message) -> bool:
    """Whether this is an answer.  A message with nothing but a chain of thought was cut off before one."""
    return (
        message.role == "assistant" and not message.calls and bool(message.content or not message.reasoning)
    )


def _tool_name(i: int, message: Message, names: Mapping[str, str]) -> str:
    """The function whose result message `i` is: by its call's id, or, without one, by name."""
    if message.call_id is None and message.name:
        return message.name
    if message.call_id is not None and message.call_id in names:
        return names[message.call_id]
    known = ", ".join(names) or "none"
    raise ConversationError(
        f"tool_call_id {message.call_id!r} answers no call before it; calls so far: {known}",
        param=f"messages[{i}].tool_call_id",
    )


def _last(token: int, tokens: Sequence[int]) -> int:
    return len(tokens) - 1 - tokens[::-1].index(token)
