"""Top-level names in the bodies of /v1/responses and /v1/messages.

docs/responses.md and docs/messages.md say what each does.  They are listed here only so that unknown names
can be reported.
"""

from __future__ import annotations

from server.fields.rows import Row, honoured, ignored

OTHER_ROWS: tuple[Row, ...] = (
    *honoured(
        "background conversation include input instructions max_output_tokens max_tool_calls metadata model "
        "moderation n parallel_tool_calls previous_response_id prompt prompt_cache_key reasoning "
        "safety_identifier service_tier store stream stream_options temperature text tool_choice tools "
        "top_logprobs top_p truncation user top_k min_p repetition_penalty presence_penalty "
        "frequency_penalty logit_bias seed stop stop_token_ids min_tokens ignore_eos return_token_ids "
        "thinking_token_budget structured_outputs allowed_token_ids bad_words include_stop_str_in_output "
        "prompt_logprobs return_tokens_as_token_ids truncate_prompt_tokens cache_salt",
        ("responses",),
    ),
    *ignored(
        "access_programs background_options client_metadata context_management image prompt_cache_options "
        "prompt_cache_retention",
        apis=("responses",),
    ),
    *honoured(
        "container max_tokens mcp_servers messages model output_config output_format seed stop_sequences "
        "stream system temperature thinking tool_choice tools top_k top_p",
        ("messages",),
    ),
    *ignored(
        "betas cache_control context_management diagnostics inference_geo metadata service_tier speed "
        "user_profile_id workspace_id",
        apis=("messages",),
    ),
)
