"""Fields of other servers: each is replaced by a field of ours, ignored, or refused.

The servers are vLLM, SGLang, llama.cpp, Ollama, TGI, DeepSeek and OpenRouter, as of 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from server.fields.rows import CHAT, COMPLETIONS, Row, ignored, refused, same

NO_SAMPLER = "this server does not have this sampler; `temperature`, `top_p`, `top_k` and `min_p` do it here"
NO_PICTURES = "gpt-oss reads text; leave it out"


def _unless(*nothing: Any) -> Callable[[str], Callable[[Any], Mapping[str, Any]]]:
    """Gives `target` the same value, except for values that mean "not set"."""

    def of(target: str) -> Callable[[Any], Mapping[str, Any]]:
        return lambda value: {} if type(value) is not bool and value in nothing else {target: value}

    return of


def _thinks(value: Any) -> Mapping[str, Any]:
    """true: the default; false: none; otherwise the effort itself."""
    if value is True:
        return {}
    return {"reasoning_effort": "none" if value is False else value}


def _switch(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return {} if value else {"reasoning_effort": "none"}


def _excludes(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return {"include_reasoning": not value}


def _thinking_type(value: Any) -> Mapping[str, Any]:
    if value not in ("enabled", "disabled", "adaptive", "auto"):
        raise ValueError("must be 'enabled', 'disabled', 'adaptive' or 'auto'")
    return {"reasoning_effort": "none"} if value == "disabled" else {}


def _ollama_format(value: Any) -> Mapping[str, Any]:
    if value == "json":
        return {"structured_outputs.json_object": True}
    if value == "":
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be 'json' or a JSON schema")
    return {"structured_outputs.json": value}


def _top_probabilities(value: Any) -> Mapping[str, Any]:
    return {} if value == 0 else {"logprobs": True, "top_logprobs": value}


THINKING = (
    *same("chat_template_kwargs.reasoning_effort", "reasoning_effort", apis=CHAT),
    *same(
        "chat_template_kwargs.enable_thinking chat_template_kwargs.thinking enable_thinking",
        "reasoning_effort",
        _switch,
        apis=CHAT,
        note="false means `none`; true changes nothing",
    ),
    *same(
        "think", "reasoning_effort", _thinks, apis=CHAT, note="Ollama; also true or false; false means `none`"
    ),
    *same(
        "thinking.type",
        "reasoning_effort",
        _thinking_type,
        apis=CHAT,
        note="DeepSeek, Anthropic; `disabled` means `none`, other values change nothing",
    ),
    *same("thinking.budget_tokens", "thinking_token_budget", apis=CHAT),
    *same("reasoning.effort", "reasoning_effort", apis=CHAT, note="OpenRouter"),
    *same("reasoning.enabled", "reasoning_effort", _switch, apis=CHAT, note="false means `none`"),
    *same(
        "reasoning.exclude",
        "include_reasoning",
        _excludes,
        apis=CHAT,
        note="true means `include_reasoning: false`",
    ),
    *same("reasoning.max_tokens", "thinking_token_budget", apis=CHAT),
    *ignored("reasoning.summary", "the chain of thought is never summarised", CHAT),
    *same(
        "reasoning_budget thinking_budget_tokens",
        "thinking_token_budget",
        _unless(-1)("thinking_token_budget"),
        apis=CHAT,
        note="llama.cpp; -1: no limit",
    ),
    *same(
        "separate_reasoning",
        "include_reasoning",
        lambda value: {},
        apis=CHAT,
        note="SGLang; reasoning always has fields of its own",
    ),
)

LIMITS = (
    *same("max_completion_tokens", "max_tokens", apis=COMPLETIONS, note="of chats"),
    *same(
        "n_predict max_new_tokens max_output_tokens",
        "max_tokens",
        _unless(-1, -2)("max_tokens"),
        note="llama.cpp, TGI, Responses; -1: no limit",
    ),
    *same(
        "options.num_predict", "max_tokens", _unless(-1, -2)("max_tokens"), note="Ollama; -1, -2: no limit"
    ),
    *same("n_cmpl", "n", note="llama.cpp"),
    *same("options.stop", "stop"),
    *same("stream_usage", "stream_options.include_usage"),
    *same("return_tokens", "return_token_ids", note="llama.cpp"),
    *same("no_stop_trim", "include_stop_str_in_output", note="SGLang"),
)

SAMPLING = (
    *same(
        "repeat_penalty",
        "repetition_penalty",
        note="llama.cpp, Ollama; over the whole text, not over its last 64 tokens",
    ),
    *same("options.repeat_penalty", "repetition_penalty"),
    *(
        row
        for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
        for row in same(f"options.{name}", name, note="Ollama" if name == "temperature" else "")
    ),
    *same("options.seed", "seed"),
    *same("n_probs", "top_logprobs", _top_probabilities, apis=CHAT, note="llama.cpp; 0: none"),
    *same("n_probs", "logprobs", _unless(0)("logprobs"), apis=COMPLETIONS, note="llama.cpp; 0: none"),
    *refused(
        "repeat_last_n options.repeat_last_n",
        "here `repetition_penalty` applies to the whole text; leave it out",
        -1,
        64,
    ),
    *refused("mirostat options.mirostat", NO_SAMPLER, 0),
    *refused(
        "dry_multiplier xtc_probability dynatemp_range top_n_sigma top_a options.xtc_probability",
        NO_SAMPLER,
        0,
        -1,
    ),
    *refused("typical_p typ_p tfs_z options.typical_p options.tfs_z", NO_SAMPLER, 1),
    *refused(
        "samplers", "the order is fixed: penalties, temperature, `top_k`, `top_p`, `min_p`; leave it out"
    ),
    *refused("adaptive_target", NO_SAMPLER, -1),
    *ignored(
        "mirostat_tau mirostat_eta dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers "
        "xtc_threshold dynatemp_exponent adaptive_decay options.mirostat_tau options.mirostat_eta "
        "min_keep "
        "options.min_keep",
        "a parameter of a sampler that this server does not have; the sampler itself is refused",
    ),
    *refused("use_beam_search", "this server samples; `n` or `best_of` make several answers", False),
    *refused("length_penalty", "it belongs to beam search, which this server does not have", 1, 0),
    *refused("watermarking", "this server does not have it", False),
    *refused(
        "repetition_detection", "this server does not have it; `repetition_penalty` makes repeats rarer"
    ),
    *refused(
        "logits_processors logits_processor custom_logit_processor",
        "no code of a request is run; "
        "`logit_bias`, `allowed_token_ids` and `structured_outputs` do much of it",
    ),
    *refused("lora lora_path lora_adapter adapter_id", "there are no adapters here"),
)

STRUCTURED = (
    *same("guided_json", "structured_outputs.json", note="older vLLM, like all `guided_…`"),
    *same("guided_regex regex", "structured_outputs.regex", note="SGLang's name is `regex`"),
    *same("guided_choice", "structured_outputs.choice"),
    *same(
        "guided_grammar grammar ebnf",
        "structured_outputs.grammar",
        _unless("")("structured_outputs.grammar"),
        note="`grammar` is llama.cpp's, `ebnf` SGLang's",
    ),
    *same("json_schema", "structured_outputs.json", note="llama.cpp"),
    *same("format", "structured_outputs.json", _ollama_format, note="Ollama; `json` or a schema"),
    *same("structural_tag", "structured_outputs.structural_tag", note="SGLang"),
    *ignored(
        "guided_decoding_backend structured_outputs._backend structured_outputs._backend_was_auto",
        "this server has only one implementation",
    ),
    *refused(
        "guided_whitespace_pattern structured_outputs.whitespace_pattern",
        "between the parts of JSON there is one space or one line break with its indent; leave it out",
    ),
    *ignored(
        "structured_outputs.disable_any_whitespace structured_outputs.disable_fallback",
        "runs of spaces are never allowed",
    ),
    *refused(
        "structured_outputs.disable_additional_properties",
        'say "additionalProperties": false in the schema',
        False,
    ),
    *ignored(
        "grammar_lazy grammar_triggers grammar_type preserved_tokens", "llama.cpp's own, from a chat template"
    ),
)

PROMPT = (
    *refused(
        "chat_template chat_template_id",
        "harmony is the only format of gpt-oss; /v1/completions takes a prompt as it is",
        apis=CHAT,
    ),
    *refused("documents", "put the documents into a message", apis=CHAT),
    *refused("messages[].images images messages[].videos messages[].audios", NO_PICTURES, apis=CHAT),
    *refused("mm_processor_kwargs media_io_kwargs multi_modal_data multi_modal_uuids", NO_PICTURES, {}),
    *refused("multimodal_data image_data audio_data video_data", NO_PICTURES),
    *refused("prompt_embeds input_embeds", "send text or token ids as `prompt`", apis=COMPLETIONS),
    *refused("input_ids input_extra", "send token ids as `prompt` of /v1/completions"),
    *refused("add_special_tokens", "gpt-oss has no token that begins a text; leave it out", False, apis=CHAT),
    *ignored("add_special_tokens", "gpt-oss has no token that begins a text", COMPLETIONS),
    *refused(
        "skip_special_tokens",
        "harmony's tokens are read, not shown; /v1/completions with `return_token_ids` has all of them",
        True,
    ),
    *ignored("spaces_between_special_tokens", "special tokens are not shown"),
    *refused(
        "truncation_side",
        "prompts are never truncated; shorten it yourself",
        "left",
        "right",
        note="with `truncate_prompt_tokens` a prompt that would be cut is refused",
    ),
    *refused(
        "system template raw",
        "this is Ollama's /api/generate; send messages, or `prompt` to /v1/completions",
        False,
    ),
    *refused("context", "this is Ollama's /api/generate; send the whole conversation"),
    *ignored(
        "chat_template_kwargs.model_identity chat_template_kwargs.builtin_tools "
        "chat_template_kwargs.add_generation_prompt chat_template_kwargs.clear_thinking "
        "chat_template_kwargs.preserve_thinking",
        "for other models' chat templates",
        CHAT,
    ),
    *ignored(
        "reasoning_format parse_tool_calls reasoning_in_content thinking_forced_open generation_prompt "
        "tool_stream",
        "harmony is always parsed, and reasoning has fields of its own",
        CHAT,
    ),
    *ignored(
        "n_keep n_discard options.num_keep options.num_ctx",
        "prompts are never truncated; `--max-context` sets the context",
    ),
    *refused("n_indent", "this server does not have it; use `structured_outputs.regex`", 0),
    *refused(
        "t_max_predict_ms", "close the connection when it has taken too long, or use `max_tokens`", 0, -1
    ),
    *refused("logprob_token_ids", "`top_logprobs` reports the most likely tokens"),
    *refused("post_sampling_probs", "log-probabilities are the model's own, before sampling", False),
    *refused("response_fields", "an answer has all its fields"),
    *refused("plugins", "this server runs nothing; offer a function in `tools` and run it yourself"),
    *refused("kv_transfer_params ec_transfer_params", "one server computes both the prompt and the answer"),
)

HARMLESS = (
    *ignored(
        "metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention verbosity",
        "as in chats",
        COMPLETIONS,
    ),
    *ignored("thinking_token_budget", "raw text has no chain of thought", COMPLETIONS),
    *ignored("priority", "requests are served in order, each key in turn"),
    *ignored(
        "request_id session_id rid bootstrap_host bootstrap_port bootstrap_room data_parallel_rank",
        "the header `x-request-id` is honoured",
    ),
    *ignored("cache_prompt n_cache_reuse id_slot slot_id", "prefixes are always cached"),
    *ignored(
        "keep_alive options.num_gpu options.num_thread options.num_batch options.main_gpu options.use_mmap "
        "options.use_mlock options.low_vram options.numa options.f16_kv options.vocab_only",
        "the model stays loaded; the server's settings determine how it runs",
    ),
    *ignored(
        "vllm_xargs extra_body extra_headers return_hidden_states return_routed_experts "
        "routed_experts_prompt_start stream_interval return_token_offsets return_mm_kwargs"
    ),
    *ignored(
        "timings_per_token return_progress sse_ping_interval verbose backend_sampling reasoning_control",
        "llama.cpp; streams have comments with the progress of the prompt",
    ),
    *ignored(
        "provider models route transforms usage litellm_params drop_params caching ttl",
        "for a router in front of the server",
    ),
    *ignored("return_prompt_text", "POST /v1/chat/completions/render has it"),
    *ignored(
        "messages[].tool_calls[].index messages[].id messages[].annotations messages[].tool_name "
        "messages[].cache_control messages[].content[].cache_control messages[].reasoning_details "
        "messages[].thinking_blocks messages[].provider_specific_fields messages[].citations "
        "messages[].created_at messages[].metadata messages[].parsed messages[].phase "
        "messages[].token_ids "
        "messages[].finish_reason messages[].tool_calls[].function.parsed_arguments "
        "messages[].tool_calls[].extra_content messages[].provider_metadata tools[].cache_control "
        "tools[].function.cache_control tools[].defer_loading tools[].function.defer_loading "
        "messages[].content[].id messages[].content[].annotations messages[].function_call.thought "
        "messages[].tool_calls[].provider_specific_fields messages[].tool_calls[].caller",
        "clients copy it from earlier answers or other services",
        CHAT,
    ),
)

ELSEWHERE_ROWS: tuple[Row, ...] = (*THINKING, *LIMITS, *SAMPLING, *STRUCTURED, *PROMPT, *HARMLESS)
