"""Every limit in the documentation is the one in the code, and some test fails without it.

Each row of a table is listed here, with its numbers from the code, and the tests that check the limit.
"""

import ast
import json
import re

import pytest

from engine.fairness import SHARES
from engine.sampling import MASK_PATIENCE
from gptoss.serve import KEEP_ALIVE_SECONDS
from language.constraints import gbnf, sandbox, schemas
from server import middleware
from server.api import shared_fields as fields
from server.api import structured
from server.api.responses import background
from server.api.structured import AnswerFields, StructuredOutputs
from server.dialogue.records import MAX_CHAIN
from server.errors import MAX_MESSAGE
from server.front import bodies, body_memory, heap, preprocessing, protocol
from server.logs import MAX_PATH
from server.page import MAX_CHARACTERS as MARKDOWN
from server.page import rendering
from server.settings import Settings
from tests.docs.pages import ROOT

DEFAULT = Settings()


def size(bytes):
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if bytes % unit == 0:
            return f"{bytes // unit} {name}"
    raise AssertionError(bytes)


def seconds(value):
    return f"{value:g} s"


def most(model, field, key="maxItems"):
    """The only limit of that kind in the JSON schema of a field."""
    (found,) = set(re.findall(rf'"{key}": (\d+)', json.dumps(model.model_json_schema()["properties"][field])))
    return int(found)


BODY = f"`--max-body-bytes` ({size(DEFAULT.max_body_bytes)})"

# attack → what its limit must say; the tests that hold it
SECURITY = {
    "endless headers or trailers": (
        [f"{size(protocol.HEAD_BYTES)} and {protocol.HEAD_FIELDS} fields"],
        "test_a_head_that_never_ends_is_a_431_or_400_and_the_end test_a_head_that_is_too_large_is_a_431 "
        "test_a_head_that_is_just_small_enough_is_read test_trailers_that_never_end_end_the_connection",
    ),
    "slowly sent headers, or a connection without a request": (
        [seconds(protocol.HEAD_SECONDS)],
        "test_a_header_that_drips_ends_the_connection test_a_header_that_does_not_come_ends_the_connection",
    ),
    "a connection that is idle after its answer": (
        [seconds(KEEP_ALIVE_SECONDS), "until a new connection needs its place"],
        "test_a_connection_that_idles_after_its_answer_ends "
        "test_a_new_connection_replaces_the_one_that_is_idle_for_longest",
    ),
    "too many connections": (
        [
            f"`--max-connections`, {DEFAULT.max_connections:,}",
            f"{protocol.MAX_CLOSING} that are being closed",
        ],
        "test_when_all_connections_are_answered_a_new_one_is_a_503 test_connections_that_are_closing_are_few "
        "test_a_new_connection_replaces_the_one_whose_body_arrives_for_longest",
    ),
    "pipelined requests": (
        ["one at a time", size(protocol.AHEAD_BYTES)],
        "test_thousands_of_requests_sent_ahead_do_not_pile_up "
        "test_requests_sent_ahead_are_answered_in_order_and_wait_unparsed",
    ),
    "an endless or slowly sent body": (
        [BODY, seconds(middleware.BODY_SECONDS)],
        "test_a_body_that_grows_too_long_is_refused_while_it_is_read test_a_body_that_does_not_come_is_a_408",
    ),
    "many large bodies at the same time": (
        [size(body_memory.ALL_BODIES_BYTES), f"{body_memory.MIN_BODIES} of `--max-body-bytes`"],
        "test_a_client_that_sends_its_body_is_served_while_others_stop_in_the_middle "
        "test_the_body_that_arrives_for_longest_makes_room test_a_body_counts_only_until_its_answer_begins "
        "test_a_body_that_has_arrived_stays_and_the_newest_is_refused",
    ),
    "a body in tiny chunks": (
        [f"{protocol.MAX_CHUNKS:,} chunks"],
        "test_a_body_in_tiny_chunks_is_refused_after_many",
    ),
    "a body that is still being sent when it is refused": (
        [f"{seconds(middleware.LINGER_SECONDS)} or {size(middleware.LINGER_BYTES)} more is read"],
        "test_a_connection_whose_body_is_refused_unread_ends "
        "test_a_client_that_is_still_sending_reads_why_it_was_refused",
    ),
    "a client that does not read its answer": (
        [f"{size(protocol.STUCK_BYTES)} in {seconds(protocol.STUCK_SECONDS)}"],
        "test_a_client_that_never_reads_is_cut_off test_a_client_that_reads_slowly_is_not_cut_off",
    ),
    "many clients that do not read large answers": (
        [size(protocol.UNREAD_BYTES)],
        "test_what_all_clients_together_have_not_read_is_bounded",
    ),
    "an invalid Content-Length": (
        [f"{middleware.LENGTH_DIGITS} digits"],
        "test_a_content_length_that_is_no_length_is_a_400 "
        "test_a_length_of_thousands_of_digits_is_a_400_of_the_middleware_too",
    ),
    "too many arrays and objects, names, or elements": (
        [f"{bodies.MAX_CONTAINERS:,}", f"{bodies.MAX_PAIRS:,}", f"{bodies.MAX_ELEMENTS:,}"],
        "test_a_body_of_too_many_parts_is_refused_unparsed test_counting_agrees_with_parsing",
    ),
    "too many messages, items or functions": (
        [f"`--max-messages` ({DEFAULT.max_messages:,})", f"`--max-tools` ({DEFAULT.max_tools:,})"],
        "test_lists_have_a_length_that_a_setting_says",
    ),
    "a short body that refers to much that is stored": (
        [BODY, f"{MAX_CHAIN:,} responses"],
        "test_a_short_body_cannot_name_a_long_item_again_and_again "
        "test_a_conversation_that_is_larger_than_a_body_may_be_is_not_gone_on_from "
        "test_a_chain_of_responses_has_a_length",
    ),
    "listing large stored items": (
        [BODY],
        "test_a_large_conversation_is_looked_at_in_parts "
        "test_pages_of_large_items_end_early_and_all_of_them_are_seen "
        "test_of_many_pages_asked_for_at_once_few_are_in_memory",
    ),
    "more and more stored responses": (
        [f"`--store-size` ({size(DEFAULT.store_size)})"],
        "test_the_least_recently_used_give_way_to_the_newest",
    ),
    "too many background responses": (
        [f"`--max-queued` ({DEFAULT.max_queued})"],
        "test_there_are_only_so_many_jobs",
    ),
    "many clients that stream one background response": (
        [f"{background.MAX_WATCHERS} clients"],
        "test_only_so_many_clients_stream_one_job",
    ),
    "prompts × n × best_of": (["`--max-queued`"], "test_answers_are_counted_before_anything_is_made"),
    "one request whose many answers would take all places": (
        [f"a {({4: 'quarter'})[SHARES]} of `--max-running`"],
        "test_one_request_with_many_answers_takes_a_quarter_of_the_places_while_others_run "
        "test_where_rows_cost_time_many_requests_share_the_places_equally",
    ),
    "long lists of wrong elements": (
        ["validation stops at the first"],
        "test_a_list_of_wrong_elements_costs_the_loop_little test_an_error_is_small_whatever_it_quotes",
    ),
    "large bodies to parse, validate and tokenise": (
        [
            f"{preprocessing.MAX_SLOTS} at once",
            f"{({3: 'three times'})[preprocessing.REST]} as long as its work",
            "`--max-queued` wait",
        ],
        "test_too_many_large_bodies_are_a_429_and_small_ones_go_on test_who_has_left_is_skipped "
        "test_a_large_body_is_rendered_beside_the_event_loop "
        "test_tokenising_leaves_other_threads_the_interpreter "
        "test_a_large_body_that_is_right_costs_the_loop_little test_a_body_is_checked_beside_the_loop",
    ),
    "large answers to write as JSON": (["on a thread"], "test_a_large_answer_is_written_beside_the_loop"),
    "memory that is still allocated after a flood": (
        [seconds(heap.WAIT_SECONDS)],
        "test_a_while_after_a_request_memory_is_given_back_if_there_is_more_of_it "
        "test_what_is_free_goes_back_and_is_not_resident_any_more "
        "test_what_is_freed_after_the_peak_goes_back_too",
    ),
    "function names that collide": (
        ["linear time"],
        "test_names_that_are_one_identifier_take_linear_time",
    ),
    "a grammar whose token masks are slow": (
        [f"{1000 * MASK_PATIENCE:g} ms"],
        "test_who_waits_for_a_mask_waits_alone test_masks_of_one_step_share_its_patience "
        "test_a_grammar_that_was_slow_once_has_threads_of_its_own",
    ),
    "JSON schemas that are hard to compile": (["a second of time"], "test_limits_of_a_schema_are_told"),
    "too many requests with one key": (
        ["its share of `--max-queued`", "`--key-requests-per-minute`"],
        "test_one_caller_may_have_all_places_but_not_when_others_may_come "
        "test_a_key_has_its_requests_a_minute_and_others_have_theirs",
    ),
    "a malicious config.json, index or settings file": (
        ["upper limits"],
        "test_a_target_holds_for test_a_target_holds_for_what_is_nearly_right",
    ),
    "DNS rebinding": (
        ["names of this server"],
        "test_without_keys_a_request_comes_under_a_name_of_this_server",
    ),
    "Markdown that is slow to render": (
        [
            f"{MARKDOWN:,} characters",
            f"{seconds(rendering.SECONDS)} in a separate process",
            f"{rendering.MAX_WAITING} requests wait",
        ],
        "test_one_that_takes_too_long_is_given_up_and_the_next_is_rendered "
        "test_more_than_a_few_at_once_are_refused test_more_markdown_than_is_allowed_is_refused",
    ),
    "forged lines in the log": (
        [f"{MAX_PATH} characters"],
        "test_a_client_cannot_write_a_line_of_the_text_log test_a_long_path_is_logged_in_short",
    ),
    "a malicious hub that names files outside the cache": (
        ["hexadecimal", "in the folder"],
        "test_a_hub_cannot_name_a_file_of_ours_as_a_checksum "
        "test_a_hub_cannot_name_a_file_outside_of_the_folder "
        "test_an_index_cannot_name_files_of_other_folders",
    ),
}

SCHEMAS = {
    "characters of all schemas of a request, as JSON": f"{schemas.MAX_CHARACTERS:,}",
    "characters of one name, constant or pattern": f"{schemas.MAX_STRING:,}",
    "levels of JSON": f"{schemas.MAX_DEPTH}",
    "properties of one object": f"{schemas.MAX_PROPERTIES}",
    "characters of a pattern or grammar, or of all choices": f"{structured.LONGEST:,}",
    "rules of a GBNF grammar": f"{gbnf.MAX_RULES:,}",
    "choices": f"{most(StructuredOutputs, 'choice'):,}",
    "`allowed_token_ids`": f"{most(AnswerFields, 'allowed_token_ids'):,}",
    "`bad_words`": f"{most(AnswerFields, 'bad_words')}, "
    f"of {most(AnswerFields, 'bad_words', 'maxLength')} characters each",
    "time to compile": f"{sandbox.CPU_SECONDS:g} s of processor",
}

LIMITS = {
    "request body": f"`--max-body-bytes`, {size(DEFAULT.max_body_bytes)}",
    "time for a body to arrive": seconds(middleware.BODY_SECONDS),
    "time for a request": f"`--request-timeout`, {seconds(DEFAULT.request_timeout)}",
    "choices of a request (`n`, `best_of`)": f"{fields.MAX_CHOICES}, and at most `--max-queued`",
    "`logit_bias` entries, `stop_token_ids`": f"{fields.MAX_BIASES:,} each",
}


def table(page, heading):
    """First cell → second cell of each row of the table under a heading."""
    section = (ROOT / page).read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in re.findall(r"^\|.*\|$", section, re.M)
    ]
    return {row[0]: row[1].removesuffix("|").strip() for row in rows[2:]}


BOUNDS = table("docs/security.md", "What is bounded")


def numbers(text):
    return re.findall(r"\d+(?:,\d{3})*", text)


def test_every_row_is_known():
    assert BOUNDS.keys() == SECURITY.keys()


@pytest.mark.parametrize("attack", SECURITY)
def test_a_bound_says_the_code_s_number_and_no_other(attack):
    said, (parts, _) = BOUNDS[attack], SECURITY[attack]
    for part in parts:
        assert part in said
    assert sorted(numbers(said)) == sorted(numbers(" ".join(parts)))


@pytest.fixture(scope="module")
def tests():
    """Names of all test functions."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("attack", SECURITY)
def test_a_bound_is_held_by_tests(attack, tests):
    named = SECURITY[attack][1].split()
    assert named
    assert set(named) <= tests


def test_limits_of_a_schema_are_told():
    assert table("docs/structured-output.md", "Limits of a schema") == SCHEMAS


def test_numbers_of_the_page_of_limits_are_the_code_s():
    said = table("docs/limits.md", "Numbers")
    assert {what: said[what] for what in LIMITS} == LIMITS
    assert f"{MAX_MESSAGE:,} characters" in (ROOT / "docs/security.md").read_text()


def test_the_image_s_user_is_the_one_that_is_told():
    user = re.search(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert f"It runs as user {user} and never as root" in (ROOT / "SECURITY.md").read_text()
    assert "one key takes at most three\n  quarters of its places" in (ROOT / "SECURITY.md").read_text()
