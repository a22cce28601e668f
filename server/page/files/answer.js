// Running answers: from the request to the last event, or to an error or a stop.

import { ask, events, Failure } from "./api.js";
import { fields } from "./settings.js";
import { add, messages } from "./tree.js";

/** Conversation id → its running Answer. */
export const running = new Map();

/** Writes the answer to `parent` into a new node, and calls `changed` after each piece.  Returns the node. */
export async function write(conversation, parent, changed) {
	const body = {
		messages: messages(conversation, parent),
		stream: true,
		stream_options: { include_usage: true },
		...fields(conversation.settings),
	};
	const node = add(conversation, parent, { role: "assistant", reasoning: "", calls: [], figures: {} });
	const answer = new Answer(node, changed);
	running.set(conversation.id, answer);
	changed();
	try {
		await answer.read(body);
	} catch (error) {
		if (error.name === "AbortError") node.finish = "stopped";
		else if (error instanceof Failure) node.problem = { text: error.message, status: error.status };
		else throw error;
	} finally {
		running.delete(conversation.id);
	}
	return node;
}

/** reading  [computed tokens, all tokens] of the prompt, while it is computed */
class Answer {
	stopping = new AbortController();
	start = performance.now();

	constructor(node, changed) {
		this.node = node;
		this.changed = changed;
	}

	stop() {
		this.stopping.abort();
	}

	get seconds() {
		return (performance.now() - this.start) / 1000;
	}

	async read(body) {
		for await (const event of events(await ask("v1/chat/completions", body, this.stopping.signal))) {
			if (event.usage) this.counted(event.usage);
			if (event.choices[0]) this.take(event.choices[0]);
			this.reading = event.reading;
			this.changed();
		}
	}

	take({ delta, finish_reason: finish }) {
		const { node } = this;
		const { figures } = node;
		if (delta.reasoning || delta.content || delta.tool_calls) figures.first ??= this.seconds;
		if (delta.reasoning) {
			node.reasoning += delta.reasoning;
			figures.thought = this.seconds - figures.first;
		}
		node.text += delta.content ?? "";
		for (const { index, id, function: called } of delta.tool_calls ?? []) {
			if (id) node.calls[index] = { id, name: called.name, arguments: "", result: null };
			node.calls[index].arguments += called.arguments ?? "";
		}
		if (finish) node.finish = finish;
		figures.seconds = this.seconds;
	}

	counted(usage) {
		this.node.figures.tokens = usage.completion_tokens;
		this.node.figures.thoughtTokens = usage.completion_tokens_details?.reasoning_tokens;
	}
}
