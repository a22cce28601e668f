"""An engine that starts with a folder of stored pages, answers prompts, and stops."""

from dataclasses import replace

from tests.tools.traffic.historian import LIMITS, answer, ask, finish, ids, make_engine

SMALL = replace(LIMITS, num_pages=200, max_context=300, max_tokens_per_step=64)
PROMPT = [7 * i % 97 for i in range(150)]


def served(folder, *prompts, disk_bytes=2**30, limits=SMALL):
    """Start, answer the prompts one by one, and stop.  Returns their cached tokens, and the last stats."""
    engine = make_engine(limits, folder, disk_bytes)
    cached = []
    try:
        for prompt in prompts or (PROMPT,):
            engine.add(ask("a", prompt))
            events = finish(engine)["a"]
            assert ids(events) == answer(prompt, 5, limits.window)
            cached.append(events[0].prefill.cached_tokens)
    finally:
        engine.close()
    return cached, engine.stats()


def files(folder):
    return sorted(folder.glob("*/[bf]*"))


def files_of(folder, prompt):
    served(folder, prompt)
    return files(folder)
