"""Fields beyond OpenAI's that this server honours, under vLLM's names."""

from __future__ import annotations

from server.fields.rows import CHAT, COMPLETIONS, Row, honoured

EXTENSION_ROWS = (
    Row("top_k", "honoured", "0 or -1: all"),
    Row("min_p", "honoured"),
    Row("repetition_penalty", "honoured", "0.01 to 10"),
    Row(
        "min_tokens",
        "honoured",
        "the answer has at least this many; a format or a grammar may end it earlier",
    ),
    Row("stop_token_ids", "honoured"),
    Row("ignore_eos", "honoured", "the answer continues until `max_tokens`"),
    Row("return_token_ids", "honoured", "`prompt_token_ids`, and `token_ids` of each choice"),
    Row("stream_options.continuous_usage_stats", "honoured", "`usage` on every chunk"),
    Row("include_reasoning", "honoured", "chat; false leaves it out of the answer", CHAT),
    Row(
        "thinking_token_budget",
        "honoured",
        "chat; at the limit the analysis is closed and the answer begins; -1: not set; default: the server's "
        "`--thinking-budget`",
        CHAT,
    ),
    Row("messages[].reasoning", "honoured", "chat; also as `reasoning_content` or `thinking`", CHAT),
    Row("messages[].reasoning_content", "honoured", "", CHAT),
    Row("messages[].thinking", "honoured", "", CHAT),
    Row(
        "messages[].prefix",
        "honoured",
        "chat, DeepSeek's name; of the last message: as `continue_final_message`",
        CHAT,
    ),
    Row(
        "continue_final_message",
        "honoured",
        "chat; the answer continues the last message, which must be the assistant's: its content or, "
        "if it has none, its reasoning. Without this field the last message counts as complete",
        CHAT,
    ),
    Row(
        "add_generation_prompt",
        "honoured",
        "chat; false needs `continue_final_message`, true forbids it",
        CHAT,
    ),
    Row(
        "echo",
        "honoured",
        "chat; the content begins with that of the last message, if it is the assistant's",
        CHAT,
    ),
    Row(
        "structured_outputs",
        "honoured",
        "the format of the visible answer: exactly one of the fields in it; not together with "
        "`response_format`, `allowed_token_ids` or `bad_words`",
    ),
    Row(
        "structured_outputs.json",
        "honoured",
        "a JSON schema, or one in a string; chats have it in the prompt too",
    ),
    Row("structured_outputs.regex", "honoured", "Rust's syntax without lookaround; the whole answer matches"),
    Row("structured_outputs.choice", "honoured", "one of these texts"),
    Row(
        "structured_outputs.grammar", "honoured", "Lark in llguidance's dialect, or GBNF if it contains `::=`"
    ),
    Row("structured_outputs.json_object", "honoured"),
    Row(
        "structured_outputs.structural_tag",
        "honoured",
        "an object, or one in a string; free text until a tag begins",
    ),
    Row(
        "response_format",
        "honoured",
        "completions; as for chats, but the schema is not added to the prompt",
        COMPLETIONS,
    ),
    *honoured(
        "response_format.type response_format.json_schema response_format.json_schema.name "
        "response_format.json_schema.description response_format.json_schema.schema "
        "response_format.json_schema.strict",
        COMPLETIONS,
    ),
    Row("response_format.schema", "honoured", "of type `json_object`: as `structured_outputs.json`"),
    Row("response_format.structures", "honoured", "of type `structural_tag`"),
    Row("response_format.triggers", "honoured", "of type `structural_tag`"),
    Row("response_format.format", "honoured", "of type `structural_tag`"),
    Row(
        "allowed_token_ids",
        "honoured",
        "only these tokens in the visible answer; it may end after any of them, and before the first only if "
        "an end token is in the list",
    ),
    Row("bad_words", "honoured", "texts that cannot occur in the visible answer"),
    Row("include_stop_str_in_output", "honoured", "the stop string stays in the answer"),
    Row(
        "prompt_logprobs",
        "honoured",
        "0 to 20; not with `stream`; `rank` is null for a token outside the most likely ones",
    ),
    Row("return_tokens_as_token_ids", "honoured", "tokens in log-probabilities are written as `token_id:17`"),
    Row("truncate_prompt_tokens", "honoured", "a prompt that it would cut is refused; -1: the context"),
    Row("cache_salt", "honoured", "the prefix cache is shared only with requests that have the same one"),
)
