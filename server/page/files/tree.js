// A conversation is a tree of messages: editing a message, or regenerating one, adds a branch beside it.
//
//   conversation  {id, title, updated, settings, nodes: {id: node}, children: {id: [ids]}, chosen: {id: id}}
//   node          {id, parent, role: "user" | "assistant", text}
//     of a user       files: [{name, text}]
//     of an assistant reasoning, calls: [{id, name, arguments, result}], finish, problem: {text, status}, figures
//
// `children` and `chosen` are of a node's id, or of ROOT: the branches from there, and the one that is shown.

import { newId } from "./dom.js";

export const ROOT = "root";

export const newConversation = (settings) => ({ id: newId(), title: "", updated: Date.now(), settings, nodes: {}, children: {}, chosen: {} });

/** Adds a node behind `parent`, as the branch that is shown. */
export function add(conversation, parent, node) {
	const whole = { id: newId(), parent, text: "", ...node };
	conversation.nodes[whole.id] = whole;
	(conversation.children[parent] ??= []).push(whole.id);
	conversation.chosen[parent] = whole.id;
	return whole;
}

/** The nodes that are shown, from the first. */
export function path({ chosen, nodes }) {
	const shown = [];
	for (let id = chosen[ROOT]; id; id = chosen[id]) shown.push(nodes[id]);
	return shown;
}

/** Removes a node and all behind it; the branch beside it is shown. */
export function remove(conversation, node) {
	const { nodes, children, chosen } = conversation;
	const beside = children[node.parent];
	const place = beside.indexOf(node.id);
	beside.splice(place, 1);
	chosen[node.parent] = beside[Math.max(0, place - 1)];
	const gone = [node.id];
	for (const id of gone) {
		gone.push(...(children[id] ?? []));
		delete nodes[id];
		delete children[id];
		delete chosen[id];
	}
}

/** What the API is told: everything up to the node `last`, included. */
export function messages({ nodes, settings }, last) {
	const line = [];
	for (let node = nodes[last]; node; node = nodes[node.parent]) line.unshift(node);
	const system = settings.system?.trim() ? [{ role: "system", content: settings.system }] : [];
	return [...system, ...line.flatMap(asMessages)];
}

function asMessages(node) {
	const { role, text, reasoning, calls = [] } = node;
	if (role === "user") return [{ role, content: withFiles(node) }];
	if (!calls.length) return text ? [{ role, content: text }] : [];
	const called = calls.map(({ id, name, arguments: given }) => ({ id, type: "function", function: { name, arguments: given } }));
	const results = calls.map(({ id, result }) => ({ role: "tool", tool_call_id: id, content: result ?? "" }));
	return [{ role, content: text || null, reasoning: reasoning || null, tool_calls: called }, ...results];
}

/** A user's text behind the files that came with it, each in a fence longer than any that it has inside. */
function withFiles({ files = [], text }) {
	const told = files.map((file) => {
		const fence = (file.text.match(/`+/g) ?? []).reduce((longest, ticks) => (ticks.length < longest.length ? longest : `${ticks}\``), "```");
		return `File: ${file.name.replace(/\s+/g, " ")}\n${fence}\n${file.text}\n${fence}\n\n`;
	});
	return told.join("") + text;
}
