"""Errors that a caller of the engine gets:

* EngineError
  - PromptTooLong     the request can never fit
  - EmptyPrompt       there is nothing to continue
  - UnknownToken      the prompt or a bias has a token id that the model does not have
  - QueueFull         too many requests are waiting now
  - ShuttingDown      the server accepts no new requests
  - DeadlineExceeded  the request's own time limit has passed
  - NonFinite         the logits of this sequence were NaN or infinite
  - ConstraintFailed  the request's constraint raised an exception, or allowed no token
  - OutOfMemory       the device has no memory even for one token of this request
  - EngineDied        the engine's thread stopped on an exception
"""


class EngineError(Exception):
    """An error that a caller of the engine can handle."""


class PromptTooLong(EngineError):
    def __init__(self, tokens: int, limit: int):
        super().__init__(f"the prompt has {tokens} tokens; at most {limit} fit with one token of answer")
        self.tokens, self.limit = tokens, limit


class EmptyPrompt(EngineError):
    def __init__(self) -> None:
        super().__init__("the prompt has no tokens; at least one is needed")


class UnknownToken(EngineError):
    def __init__(self, token: int, size: int):
        super().__init__(f"token {token} does not exist: the model knows 0 to {size - 1}")
        self.token, self.size = token, size


class QueueFull(EngineError):
    def __init__(self, count: int, retry_after_seconds: int = 1, *, doing: str = "waiting"):
        """
        count  requests that fill the queue
        doing  what these requests do, for the message
        """
        requests = "1 request is" if count == 1 else f"{count} requests are"
        super().__init__(f"{requests} {doing} already; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class ShuttingDown(EngineError):
    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class DeadlineExceeded(EngineError):
    def __init__(self, seconds: float):
        super().__init__(f"the request did not finish within {seconds:g} s")


class NonFinite(EngineError):
    def __init__(self) -> None:
        super().__init__("the model produced numbers that are not finite for this request")


class ConstraintFailed(EngineError):
    def __init__(self, reason: str):
        super().__init__(f"the constraint on this answer failed: {reason}")


class OutOfMemory(EngineError):
    def __init__(self) -> None:
        super().__init__("the device ran out of memory")


class EngineDied(EngineError):
    def __init__(self) -> None:
        super().__init__("the engine stopped on an internal error")
