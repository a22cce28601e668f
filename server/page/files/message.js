// Shows one message, with its actions.

import { button, code, copy, count, h, seconds } from "./dom.js";
import { Markdown } from "./markdown.js";

const ENDS = {
	length: "The answer stops here: the limit of tokens, or the end of the context, was reached.",
	stopped: "You stopped this answer.",
};

const space = () => h("span", { class: "space" });
const strong = (text) => h("button", { class: "strong" }, text);

/**
 * A message in the page.
 *
 * actions  edit(node, text), regenerate(node), remove(node), choose(node, id), called(node): a call has its result
 */
export class MessageView {
	constructor(node, actions) {
		this.node = node;
		this.actions = actions;
		this.shown = {};
		const mine = node.role === "user";
		this.body = h("div", { class: mine ? "bubble" : "answer" });
		this.foot = h("footer", { class: "row" });
		const title = mine ? "You" : "Answer";
		this.element = h("article", { class: `message ${node.role}`, "aria-label": title }, h("h2", { class: "unseen" }, title), this.body, this.foot);
		if (mine) this.body.append(...(node.files ?? []).map(fileView), plain(node.text));
		else this.buildAnswer();
	}

	/** Calls `make` if its inputs have changed since the last time. */
	when(name, facts, make) {
		const now = JSON.stringify(facts);
		if (this.shown[name] !== now) make();
		this.shown[name] = now;
	}

	/** answer  the running Answer of this node, if there is one */
	update(conversation, answer) {
		const { node } = this;
		const beside = conversation.children[node.parent];
		if (node.role === "assistant") this.updateAnswer(answer);
		this.element.setAttribute("aria-busy", Boolean(answer));
		this.when("foot", [beside, !answer, node.figures], () => this.foot.replaceChildren(...this.footParts(beside, answer)));
	}

	edit() {
		const { node, actions, body } = this;
		const area = h("textarea", { "aria-label": "Edit your message", rows: Math.min(12, node.text.split("\n").length + 1) });
		area.value = node.text;
		const close = () => form.replaceWith(body);
		const send = (event) => {
			event.preventDefault();
			close();
			actions.edit(node, area.value);
		};
		const form = h("form", { class: "bubble", onsubmit: send }, area, h("div", { class: "row" }, space(), button("Cancel", close, { class: "quiet" }), strong("Send")));
		area.addEventListener("keydown", (event) => {
			if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
			if (event.key === "Escape") close();
		});
		body.replaceWith(form);
		area.focus();
	}

	// The model's answer

	buildAnswer() {
		this.summary = h("summary");
		this.reasoning = plain("");
		this.thought = h("details", { class: "thought" }, this.summary, this.reasoning);
		const content = h("div", { class: "markdown" });
		this.markdown = new Markdown(content);
		this.calls = h("div");
		this.state = h("div");
		this.body.append(this.thought, content, this.calls, this.state);
	}

	updateAnswer(answer) {
		const { node, actions } = this;
		const empty = !node.text && !node.calls.length;
		this.thought.hidden = !node.reasoning;
		if (this.reasoning.textContent !== node.reasoning) this.reasoning.textContent = node.reasoning;
		this.summary.textContent = answer && empty ? `Thinking… ${seconds(answer.seconds)}` : thoughtFor(node.figures);
		if (answer || this.ended !== node.text) this.markdown.show(node.text, !answer);
		this.ended = answer ? null : node.text;
		const open = !answer && node.finish === "tool_calls";
		this.when("calls", [node.calls, open], () => this.calls.replaceChildren(...node.calls.map((call) => this.callView(call, open))));
		const waits = answer && empty && !node.reasoning;
		this.when("state", [!answer, waits, answer?.reading, node.problem, node.finish], () => {
			const again = () => button(node.problem.status === 401 ? "Enter the key" : "Try again", () => actions.regenerate(node));
			let state = "";
			if (answer) state = waits ? waitingView(answer.reading) : "";
			else if (node.problem) state = h("p", { class: "problem", role: "alert" }, node.problem.text, again());
			else if (ENDS[node.finish] || empty) state = h("p", { class: "hint" }, ENDS[node.finish] ?? "The answer is empty.");
			this.state.replaceChildren(state);
		});
	}

	callView(call, open) {
		const parts = [code(`Call of ${call.name}`, indented(call.arguments))];
		if (call.result != null) parts.push(code("Result", call.result));
		else if (open) {
			const area = h("textarea", { rows: 2, "aria-label": `Result of ${call.name}`, placeholder: `What ${call.name} returns` });
			const give = (event) => {
				event.preventDefault();
				call.result = area.value;
				this.actions.called(this.node);
			};
			parts.push(h("form", { onsubmit: give }, area, h("div", { class: "row" }, space(), strong("Give result"))));
		}
		return h("section", { class: "call", "aria-label": `Call of ${call.name}` }, ...parts);
	}

	footParts(beside, answer) {
		const { node, actions } = this;
		const parts = [];
		if (beside.length > 1) {
			const place = beside.indexOf(node.id);
			const to = (id, text, name) => button(text, () => actions.choose(node, id), { "aria-label": name, disabled: id ? null : "" });
			parts.push(to(beside[place - 1], "‹", "Version before"), `${place + 1} / ${beside.length}`, to(beside[place + 1], "›", "Next version"));
		}
		if (answer) return parts;
		parts.push(button("Copy", () => copy(node.text)));
		if (node.role === "user") parts.push(button("Edit", () => this.edit()));
		else parts.push(button("Regenerate", () => actions.regenerate(node)));
		parts.push(button("Delete", () => actions.remove(node)));
		if (node.figures) parts.push(h("span", { class: "figures" }, figuresOf(node.figures)));
		return parts;
	}
}

const plain = (text) => h("p", { class: "plain" }, text);
const fileView = ({ name, text }) => h("details", { class: "file" }, h("summary", {}, name), h("pre", { tabindex: 0 }, text));

function waitingView(reading) {
	if (!reading) return h("p", { class: "dots", role: "img", "aria-label": "Waiting for the answer" }, h("i"), h("i"), h("i"));
	const [read, all] = reading;
	const text = `Reading the prompt: ${read.toLocaleString("en")} of ${count(all, "token")}`;
	return h("label", { class: "hint" }, text, h("progress", { max: all, value: read }));
}

function thoughtFor({ thought, thoughtTokens }) {
	const time = thought == null ? "Thought" : `Thought for ${seconds(thought)}`;
	return thoughtTokens ? `${time} · ${count(thoughtTokens, "token")}` : time;
}

function figuresOf({ tokens, seconds: whole, first }) {
	const parts = [];
	if (tokens) parts.push(count(tokens, "token"));
	if (tokens > 1 && whole > first) parts.push(`${((tokens - 1) / (whole - first)).toFixed(1)} tokens/s`);
	if (first != null) parts.push(`first after ${first.toFixed(2)} s`);
	return parts.join(" · ");
}

function indented(text) {
	try {
		return JSON.stringify(JSON.parse(text), null, 2);
	} catch {
		return text; // it is still being written, or the model wrote something else
	}
}
