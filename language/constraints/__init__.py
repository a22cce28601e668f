"""Constrained decoding: from tools and schemas to the tokens that the sampler may choose next.

    constraints = Constraints(tokenizer, vocab_size)                  # once per process
    threads = CompilerThreads(constraints, max_waiting)               # once per process
    constraint = await threads.compile(spec)                          # per request; None: unconstrained
    Request(…, constraint=constraint)                                 # for n answers, one `copy()` each

* answer.py    AnswerSpec, what a request demands of its answer, and the grammar of a whole harmony answer
* gbnf.py      translates llama.cpp's grammars to Lark
* tags.py      translates structural tags to Lark
* schemas.py   limits on the JSON schemas that clients send, and the errors they get
* grammar.py   llguidance behind the engine's `Constraint`
* sandbox.py   the process in which a client's schema is compiled first, because that process can be killed
* threads.py   the threads that compile, so that the event loop does not wait
* thinking.py  a limit on the length of the chain of thought

`compile` takes 2 to 15 ms for usual schemas and up to half a second for the largest that are accepted,
without the GIL; a new schema is checked in the sandbox before.  `mask` and `accept` are called on the
engine's thread only.  The engine asks for masks after it has launched the forward pass and before it samples,
so on a GPU they are computed at the same time.  A constraint that fails raises an exception there, and the
engine ends that request with `ConstraintFailed`.

The memory of a grammar is freed with its request; only the threads must be closed.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from language.constraints.answer import AnswerSpec, Bodies, Format, answer_grammar, bodies, may_loosen
from language.constraints.grammar import Compiler, GrammarConstraint, GrammarFailed, NotCheckedYet
from language.constraints.schemas import SchemaError
from language.constraints.thinking import ThinkingBudget, ThinkingTables
from language.harmony.header_tokens import HeaderTokens
from language.tokenizer import Tokenizer

__all__ = [
    "AnswerConstraint",
    "AnswerSpec",
    "Constraints",
    "Format",
    "GrammarConstraint",
    "GrammarFailed",
    "NotCheckedYet",
    "SchemaError",
]

AnswerConstraint = GrammarConstraint | ThinkingBudget

log = logging.getLogger("gptoss.language")

MAX_LOGGED = 1000
"""Maximum schemas that are named in the log because arguments do not follow them, each once."""

ANSWER_ROOM = 16
"""Minimum tokens that a thinking budget leaves for the visible answer within `max_tokens`."""


class Constraints:
    """Makes the constraint of each request.  Safe to use from several threads.

    vocab_size  rows of the model's logits, of which the tokenizer may know fewer
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._compiler = Compiler(tokenizer, vocab_size)
        self._headers = HeaderTokens(tokenizer)
        self._tables = ThinkingTables(tokenizer, self._headers, vocab_size)
        self._logged: set[tuple[str, str]] = set()

    def compile(self, spec: AnswerSpec, *, check_new: bool = True) -> AnswerConstraint | None:
        """The constraint that makes an answer follow `spec`; None if every answer does.

        check_new  check new schemas in the sandbox, which takes up to a second; False: raise NotCheckedYet

        Raises SchemaError.
        """
        if spec.thinking_tokens is not None and spec.thinking_tokens <= 0 and not spec.in_analysis:
            spec = replace(spec, reasoning=False)
        whole = answer = None
        if spec.constrains:
            schemas = self._checked(spec, check_new)
            whole = self._grammar(spec, schemas, thoughts=spec.reasoning)
        if whole is not None and spec.begun and not whole.continue_from(spec.begun):
            raise SchemaError(
                f"the given beginning of the answer is not allowed by {spec.format_param}", "messages"
            )
        if spec.thinking_tokens is None or not spec.reasoning or spec.prefilled or spec.raw:
            return whole
        if spec.constrains:
            answer = self._grammar(spec, schemas, thoughts=False)
        limit = max(spec.thinking_tokens, 0)
        return ThinkingBudget(self._tables, limit, whole, answer, thinking=spec.in_analysis)

    def thinking_tokens(self, budget: int, max_tokens: int) -> int:
        """`budget`, reduced so that an answer has room within `max_tokens`."""
        headers = self._headers
        written = len(headers.opening("analysis")) + len(headers.next_message) + len(headers.final)
        unfinished_character = 3
        return max(0, min(budget, max_tokens - written - unfinished_character - ANSWER_ROOM))

    def _checked(self, spec: AnswerSpec, check_new: bool) -> Bodies:
        schemas = bodies(spec)
        free = may_loosen(spec)
        users: dict[str, list[str]] = {}
        for name, body in schemas.calls.items():
            users.setdefault(body.rule, []).append(name)
        distinct = {body.rule: body for body in (schemas.final, *schemas.calls.values()) if body}
        for body in distinct.values():
            if body.ours:  # our own need no check, so they never wait for clients' schemas
                continue
            try:
                self._compiler.try_body(body.rule, body.param, check_new)
            except SchemaError as error:
                names = users.get(body.rule, [])
                if body is schemas.final or not free.issuperset(names):
                    raise
                schemas = schemas.loosen(names, str(error))
        self._log_loosened(schemas)
        return schemas

    def _grammar(self, spec: AnswerSpec, schemas: Bodies, *, thoughts: bool) -> GrammarConstraint:
        try:
            return self._compiler.compile(answer_grammar(spec, schemas, self._headers, thoughts=thoughts))
        except GrammarFailed as error:  # each schema alone was fine
            reason = f"the schemas are too large together: {error}"
            free = may_loosen(spec) & schemas.calls.keys() - schemas.loosened.keys()
            if free:
                loosened = schemas.loosen(free, reason)
                self._log_loosened(loosened)
                return self._grammar(spec, loosened, thoughts=thoughts)
            raise SchemaError(reason, "tools" if schemas.calls else spec.format_param) from None

    def _log_loosened(self, schemas: Bodies) -> None:
        """Log, once for each function and reason, that its arguments are not constrained by its schema."""
        for loosened in schemas.loosened.items():
            if loosened not in self._logged and len(self._logged) < MAX_LOGGED:
                self._logged.add(loosened)
                log.warning("the arguments of the function %s may be any JSON object: %s", *loosened)
