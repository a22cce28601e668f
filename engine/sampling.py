"""SamplingParams, and the small functions that carry them out.

Every parameter has a neutral value at which it does nothing, and that is its default, so all requests share one path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen from the logits.  Penalties and biases come first, then temperature, then the filters.

    temperature         0 is greedy; 1 leaves the model's distribution as it is
    top_p               nucleus: the smallest set of tokens whose probabilities reach top_p (Holtzman et al. 2020)
    top_k               keep the k most likely; 0 keeps all
    min_p               keep tokens at least min_p times as likely as the most likely one
    repetition_penalty  divides positive, multiplies negative logits of tokens in prompt or answer (Keskar et al. 2019)
    presence_penalty    subtracted once from the logit of each token already in the answer
    frequency_penalty   subtracted once for each time the token is in the answer
    logit_bias          token id → added to its logit
    seed                same seed, same prompt: same answer, whatever else is running; None draws one
    logprobs            None: report none; k: the chosen token's log-probability and the k most likely, of the model's own
                        distribution (temperature 1, before penalties and filters)
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None
