"""The random traffic finds mistakes: if the engine is broken in any of these ways, a test fails."""

# ruff: noqa: E501

import __future__

import inspect
import sys
import textwrap
from functools import partialmethod

import pytest

from engine import runner, sampling
from engine.admission import Admission
from engine.edit_records import EditRecords
from engine.engine import Engine
from engine.pages import Pages
from engine.runner import Runner
from engine.scheduler import Scheduler, _Budget
from tests.tools.traffic.traffic import Traffic

SEEDS = 300

MUTANTS = [
    # what is broken, where, and how
    ("a page leaves the window too early", Pages.slide, "// self.page_size", "// self.page_size + 1"),
    ("a page never leaves the window", Pages.slide, "self._drop_holder(table.banded[i])", "return"),
    ("grow takes a page too few", Pages.grow, "-(-tokens // self.page_size)", "(tokens // self.page_size)"),
    ("a shared prefix need not be in the banded layers", Pages.find, "run = run + 1 if digest in banded or elsewhere((BANDED, digest)) else 0", "run = i + 1"),
    ("a shared prefix may end in the middle of nowhere", Pages.find, "break", "continue"),
    ("the window of a shared prefix is a position short", Pages.first_visible, "- self.window + 1", "- self.window + 2"),
    ("sharing takes no hold", Pages._hold, "self._holders[page] += 1", "pass"),
    ("sharing leaves the page up for taking", Pages._hold, "del self._pool_of(page).idle[page]", "pass"),
    ("a page is shared before it is computed", Scheduler._publish, "sequence.computed //", "1 + sequence.computed //"),
    ("hashes are not chained", Pages.extend_hashes, 'hashes[-1] if hashes else _salted(salt)', '_salted(salt)'),
    ("a hash covers one token too few", Pages.extend_hashes, "(i + 1) * size]", "(i + 1) * size - 1]"),
    ("a page that is taken can still be found", Pages._take, "self._forget(page)", "pass"),
    ("a page is taken while it is held", Pages._drop_holder, "self._holders[page] == 0", "self._holders[page] <= 1"),
    ("banded pages are not released", Pages.release, "i >= table.behind", "False"),
    ("pages behind the window are released twice", Pages.release, "i >= table.behind", "True"),
    ("released pages are remembered", Pages.release, "table.full, table.banded, table.behind, table.published = ", "_ = "),
    ("the need is underestimated", Pages.needed_of_each, "self._band)", "1)"),
    ("the capacity is overestimated", Pages.capacity.fget, "self.num_pages - self._band", "self.num_pages - 1"),
    ("preempted tokens count as computed", Scheduler._preempt, "sequence.computed = 0", "pass"),
    ("preempted sequences keep their pages", Scheduler._preempt, "self.pages.release(sequence.pages)", "pass"),
    ("preempted sequences queue behind everybody", Scheduler._preempt, "appendleft", "append"),
    ("the second newest gives way", Scheduler._preempt, "self.running.pop()", "self.running.pop(max(0, len(self.running) - 2))"),
    ("the newest never gives way itself", Scheduler._make_room, "newest is sequence", "False"),
    ("the newest is served first", Scheduler.plan, "self.waiting[0]", "self.waiting[-1]"),
    ("nobody looks whether there is room", Admission.admit, "not self.pages.fits(", "self.pages is ("),
    ("all of a prompt may come from the cache", Admission.admit, "(len(sequence.tokens) - 1)", "len(sequence.tokens)"),
    ("what the cache has is computed into", Admission._start, "sequence.computed = found *", "sequence.computed = 0 *"),
    ("the budget is not spent", _Budget.spend, "self._left -= chunk.length", "pass"),
    ("the newest takes first", Scheduler.plan, "self.running[place]", "self.running[-1 - place]"),
    ("a prompt is begun while the one before waits", Scheduler.plan, "and budget.offer(self.waiting[0])", "and (setattr(budget, '_left', max(1, budget._left)) or True)"),
    ("answers may outgrow the cache", Scheduler.add, "self.pages.capacity + 1", "10**9"),
    ("answers may outgrow the context", Scheduler.add, "self.limits.max_context,", "10**9,"),
    ("more run than may", Scheduler._next, ">= self.limits.max_running", "> self.limits.max_running"),
    ("more wait than may", Scheduler.add, ">= self.limits.max_running + self", "> self.limits.max_running + self"),
    ("who leaves the queue keeps a place in it", Scheduler.remove, "self.waiting.remove(sequence)", "pass"),
    ("who leaves keeps the pages", Scheduler.remove, "self.pages.release(sequence.pages)", "pass"),
    ("a chunk counts as one token", Scheduler.commit, "sequence.computed += chunk.length", "sequence.computed += 1"),
    ("stop tokens do not stop", Scheduler.commit, "token in request.stop_tokens", "False"),
    ("an answer is one token too long", Scheduler.commit, ">= sequence.limit", "> sequence.limit"),
    ("banded keys go to full pages", Runner.batch, "(table.banded[page] - page)", "(table.full[page] - page)"),
    ("full layers look into banded pages", runner._page_table, "[table.full for table in tables]", "[table.banded for table in tables]"),
    ("positions count from the chunk's start", Runner.batch, "range(first, end))", "range(end - first))"),
    ("a chunk's first row is sampled", Runner.batch, "row + length - 1", "row"),
    ("a chunk begins where the last ended, plus one", Runner.batch, "first = sequence.computed", "first = min(sequence.computed + 1, len(sequence.tokens) - length)"),
    ("all of the answer is counted again", EditRecords.update, "tokens[self._counted :]", "tokens[2:]"),
    ("a token counts once", EditRecords.update, "+ COUNT] += 1", "+ COUNT] = 1"),
    ("a token of the answer is not penalised for its repetition", EditRecords.update, "self.flat.extend((token, 0, 0, 0))", "self.flat.extend((0, 0, 0, 0))"),
    ("prompts are not penalised", EditRecords.__init__, 'array("i", [1])', 'array("i", [0])'),
    ("stop tokens may come a token late", sampling._records, "< request.min_tokens", "<= request.min_tokens"),
    ("stop tokens never come again", EditRecords.update, "-math.inf if withholds else", "-math.inf if True else"),
    ("stop tokens come back without their bias", EditRecords.update, "self._biases.get(token, 0.0)", "0.0"),
    ("biases are forgotten", EditRecords.__init__, "_bits(bias)", "0"),
    ("who is held gets a token", Scheduler.commit, "if token is None or held", "if token is None"),
    ("who is held is told a token", sampling._advance_constraints, " or sequence.held", ""),
    ("who is held has computed all", Scheduler.commit, "chunk.length - held", "chunk.length"),
    ("who is held is asked for a mask", sampling._masks, " or sequence.held", ""),
    ("lengths leave out this pass", Runner.batch, "lengths.append(end)", "lengths.append(first)"),
]  # fmt: skip

OVERLAPPED = [
    ("the step behind is planned though somebody could begin", Scheduler.plan_ahead, "self._next() is not None", "False"),
    ("the step behind ends before the limit", Scheduler.plan_ahead, "length == sequence.limit", "length == sequence.limit - 1 and sequence.computed % 2"),
    ("the step behind has no page of its own", Scheduler.plan_ahead, "if not self.pages.grow(sequence.pages, length)", "if not self.pages.grow(sequence.pages, length - 1)"),
    ("the step behind is planned though there is no page", Scheduler.plan_ahead, "return None\n        following", "pass\n        following"),
    ("a page leaves before it is published", Scheduler.plan_ahead, "self.pages.slide(sequence.pages, sequence.computed)", "self.pages.slide(sequence.pages, length - 1)"),
    ("who has left is told what came", Scheduler.drop_ended, "if _still_running(chunk.sequence)", ""),
    ("what came is not that of who is left", Scheduler.drop_ended, "[token for _, token in kept]", "sampled.tokens"),
    ("a step behind nobody is read", Scheduler.any_running, "any(_still_running(chunk.sequence) for chunk in plan.chunks)", "True"),
    ("the token behind is in the place of the last", Runner._batch_after, "position = len(sequence.tokens)", "position = len(sequence.tokens) - 1"),
    ("the token behind is somebody else's", Runner._batch_after, "places_of.append(places[sequence])", "places_of.append(len(places_of))"),
    ("lengths behind leave out the token", Runner._batch_after, "position + 1", "position"),
    ("banded keys behind go to full pages", Runner._batch_after, "(table.banded[page] - page)", "(table.full[page] - page)"),
    ("the token behind is not counted", Runner._choose, "batch.tokens if ahead else None", "None"),
    ("the choice does not wait for the token behind", Runner._launch_sampling, "if ahead and not all", "if False and not all"),
    ("who has ended is asked for a mask", sampling._masks, " or sequence.ended", ""),
    ("who has ended is told what came", sampling._advance_constraints, " or sequence.ended", ""),
    ("a step is planned behind who is held", Scheduler.plan_ahead, "chunk.sequence.held for", "False for"),
    ("stop tokens wait for the token behind", sampling._records, "sequence.answered + ahead", "sequence.answered"),
    ("edits leave a token out", Runner._launch_sampling, "(batch, ahead, logits", "(batch, False, logits"),
    ("the step is launched behind itself", Engine._step_overlapped, "runner.launch(following, current)", "runner.launch(following)"),
    ("the step under way is forgotten", Engine._step_overlapped, "self._in_flight = runner", "_ = runner"),
]  # fmt: skip


SLOW = ("a shared prefix may end in the middle of nowhere",)
"""Mutants that only some seeds find."""


def few_of(changes):
    """Parameters of a test: every third change; all others are exhaustive."""
    return [
        pytest.param(*change, id=name, marks=pytest.mark.exhaustive if n % 3 or name in SLOW else ())
        for n, (name, *change) in enumerate(changes)
    ]


@pytest.mark.parametrize(("function", "old", "new"), few_of(MUTANTS))
def test_random_traffic_notices_when(function, old, new, monkeypatch):
    mutate(monkeypatch, function, old, new)
    for seed in range(SEEDS):
        try:
            Traffic(seed).run()
        except Exception:
            return
    pytest.fail(f"{SEEDS} seeds of random traffic did not notice")


@pytest.mark.parametrize(("function", "old", "new"), few_of(OVERLAPPED))
def test_random_traffic_of_overlapping_steps_notices_when(function, old, new, monkeypatch):
    monkeypatch.setattr(Runner, "__init__", partialmethod(Runner.__init__, overlaps=True))
    test_random_traffic_notices_when(function, old, new, monkeypatch)


def mutate(monkeypatch, function, old, new):
    """Replace a part of a method's source during one test."""
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, f"{function.__qualname__} has changed, and so must its mutant"
    owners = {c.__name__: c for c in (Pages, Scheduler, Admission, _Budget, Runner, Engine, EditRecords)}
    owner = owners.get(function.__qualname__.split(".")[0], sys.modules[function.__module__])
    namespace = {}
    code = compile(source.replace(old, new), "<mutant>", "exec", flags=__future__.annotations.compiler_flag)
    exec(code, inspect.unwrap(function).__globals__, namespace)
    monkeypatch.setattr(owner, function.__name__, namespace[function.__name__])
