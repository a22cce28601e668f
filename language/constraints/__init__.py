"""Tools and schemas → what the sampler may choose next: answers that cannot be malformed.

    constraints = Constraints(tokenizer, vocab_size)                  # once per process
    threads = CompilerThreads(constraints, max_waiting)               # likewise
    constraint = await threads.compile(spec)                          # per request; None: anything goes
    Request(…, constraint=constraint)                                 # n answers: one `copy()` each

* answer.py    AnswerSpec, what a request asks for, and the grammar of a whole harmony answer that says it
* schemas.py   JSON schemas from strangers: limits, and the errors the client gets
* grammar.py   llguidance behind the engine's `Constraint`
* rehearsal.py the process in which a stranger's schema is tried first, because there it can be stopped
* threads.py   where all that is done: beside the event loop, and strangers apart from regulars
* thinking.py  a limit on the chain of thought

Who calls what: `compile` takes 2-15 ms for usual schemas and up to half a second for the largest that
pass, without the GIL; a new schema's rehearsal comes before that.  `mask` and `accept` are called by the
engine's thread alone.  It asks for masks when the forward pass has been launched and before it samples, so on
a GPU they are computed beside it.  A constraint that fails raises there, and the engine ends its own request
with `ConstraintFailed`.

What a grammar holds goes with its request; only the threads are to be closed.
"""

from __future__ import annotations

from dataclasses import replace

from language.constraints.answer import AnswerSpec, Bodies, answer_grammar, bodies
from language.constraints.grammar import Compiler, GrammarConstraint, GrammarFailed, Untried
from language.constraints.schemas import SchemaError
from language.constraints.thinking import Closing, ThinkingBudget
from language.harmony.headers import Headers
from language.tokenizer import Tokenizer

__all__ = [
    "AnswerConstraint",
    "AnswerSpec",
    "Constraints",
    "GrammarConstraint",
    "GrammarFailed",
    "SchemaError",
    "Untried",
]

AnswerConstraint = GrammarConstraint | ThinkingBudget

ANSWER_ROOM = 16
"""Tokens of an answer that a budget for thinking leaves within `max_tokens`."""


class Constraints:
    """Makes the constraint of each request.  Safe to use from several threads.

    vocab_size  rows of the model's logits, of which the tokenizer may know fewer
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._compiler = Compiler(tokenizer, vocab_size)
        self._headers = Headers(tokenizer)
        self._closing = Closing(tokenizer, self._headers, vocab_size)

    def compile(self, spec: AnswerSpec, *, rehearse: bool = True) -> AnswerConstraint | None:
        """What holds the answer to `spec`; None where everything is allowed.

        rehearse  False: raises Untried where a schema would have to be tried first

        Raises SchemaError.
        """
        if spec.thinking_tokens is not None and spec.thinking_tokens <= 0:
            spec = replace(spec, reasoning=False)
        whole = action = None
        if spec.constrains:
            schemas = self._checked(spec, rehearse)
            whole = self._grammar(spec, schemas, thoughts=spec.reasoning)
        if spec.thinking_tokens is None or not spec.reasoning or spec.prefilled:
            return whole
        if spec.constrains:
            action = self._grammar(spec, schemas, thoughts=False)
        return ThinkingBudget(self._closing, spec.thinking_tokens, whole, action)

    def thinking_tokens(self, budget: int, max_tokens: int) -> int:
        """As much of `budget` as leaves room for an answer within `max_tokens`."""
        headers = self._headers
        written = len(headers.opening("analysis")) + len(headers.next_message) + len(headers.final)
        unfinished_character = 3
        return max(0, min(budget, max_tokens - written - unfinished_character - ANSWER_ROOM))

    def _checked(self, spec: AnswerSpec, rehearse: bool) -> Bodies:
        schemas = bodies(spec)
        distinct = {body.rule: body for body in (schemas.final, *schemas.calls.values()) if body}
        for body in distinct.values():
            if not body.ours:  # nobody's flood of schemas delays ours
                self._compiler.try_body(body.rule, body.param, rehearse)
        return schemas

    def _grammar(self, spec: AnswerSpec, schemas: Bodies, *, thoughts: bool) -> GrammarConstraint:
        try:
            return self._compiler.compile(answer_grammar(spec, schemas, self._headers, thoughts=thoughts))
        except GrammarFailed as error:  # each schema alone was fine
            param = "tools" if schemas.calls else "response_format"
            raise SchemaError(f"the schemas are too large together: {error}", param) from None
