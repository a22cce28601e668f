"""Constrained decoding: from tools and schemas to the tokens that the sampler may choose next.

    constraints = Constraints(tokenizer, vocab_size)                  # once per process
    threads = CompilerThreads(constraints, max_waiting)               # once per process
    constraint = await threads.compile(spec)                          # per request; None: unconstrained
    Request(…, constraint=constraint)                                 # for n answers, one `copy()` each

* answer.py    AnswerSpec, what a request demands of its answer, and the grammar of a whole harmony answer
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

from dataclasses import replace

from language.constraints.answer import AnswerSpec, Bodies, answer_grammar, bodies
from language.constraints.grammar import Compiler, GrammarConstraint, GrammarFailed, NotCheckedYet
from language.constraints.schemas import SchemaError
from language.constraints.thinking import ThinkingBudget, ThinkingTables
from language.harmony.header_tokens import HeaderTokens
from language.tokenizer import Tokenizer

__all__ = [
    "AnswerConstraint",
    "AnswerSpec",
    "Constraints",
    "GrammarConstraint",
    "GrammarFailed",
    "NotCheckedYet",
    "SchemaError",
]

AnswerConstraint = GrammarConstraint | ThinkingBudget

ANSWER_ROOM = 16
"""Tokens that a thinking budget leaves for the visible answer within `max_tokens`."""


class Constraints:
    """Makes the constraint of each request.  Safe to use from several threads.

    vocab_size  rows of the model's logits, of which the tokenizer may know fewer
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._compiler = Compiler(tokenizer, vocab_size)
        self._headers = HeaderTokens(tokenizer)
        self._tables = ThinkingTables(tokenizer, self._headers, vocab_size)

    def compile(self, spec: AnswerSpec, *, check_new: bool = True) -> AnswerConstraint | None:
        """The constraint that makes an answer follow `spec`; None if every answer does.

        check_new  check new schemas in the sandbox, which takes up to a second; False: raise NotCheckedYet

        Raises SchemaError.
        """
        if spec.thinking_tokens is not None and spec.thinking_tokens <= 0:
            spec = replace(spec, reasoning=False)
        whole = answer = None
        if spec.constrains:
            schemas = self._checked(spec, check_new)
            whole = self._grammar(spec, schemas, thoughts=spec.reasoning)
        if spec.thinking_tokens is None or not spec.reasoning or spec.prefilled:
            return whole
        if spec.constrains:
            answer = self._grammar(spec, schemas, thoughts=False)
        return ThinkingBudget(self._tables, spec.thinking_tokens, whole, answer)

    def thinking_tokens(self, budget: int, max_tokens: int) -> int:
        """As much of `budget` as leaves room for an answer within `max_tokens`."""
        headers = self._headers
        written = len(headers.opening("analysis")) + len(headers.next_message) + len(headers.final)
        unfinished_character = 3
        return max(0, min(budget, max_tokens - written - unfinished_character - ANSWER_ROOM))

    def _checked(self, spec: AnswerSpec, check_new: bool) -> Bodies:
        schemas = bodies(spec)
        distinct = {body.rule: body for body in (schemas.final, *schemas.calls.values()) if body}
        for body in distinct.values():
            if not body.ours:  # our own need no check, and so never wait for those of clients
                self._compiler.try_body(body.rule, body.param, check_new)
        return schemas

    def _grammar(self, spec: AnswerSpec, schemas: Bodies, *, thoughts: bool) -> GrammarConstraint:
        try:
            return self._compiler.compile(answer_grammar(spec, schemas, self._headers, thoughts=thoughts))
        except GrammarFailed as error:  # each schema alone was fine
            param = "tools" if schemas.calls else "response_format"
            raise SchemaError(f"the schemas are too large together: {error}", param) from None
