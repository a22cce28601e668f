// Conversations in this browser (IndexedDB), and as files.

import { newId } from "./dom.js";
import { add, newConversation, ROOT } from "./tree.js";

const FORMAT = "gptoss-conversations";
const LONGEST_FILE = 100 * 2 ** 20;

let database;

const outcome = (request) =>
	new Promise((resolve, reject) => {
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});

const table = (mode) => database.transaction("conversations", mode).objectStore("conversations");

/** All conversations; null if this browser stores nothing: then they are lost when the tab is closed. */
export async function open() {
	try {
		const request = indexedDB.open("gptoss", 1);
		request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
		database = await outcome(request);
		return await outcome(table("readonly").getAll());
	} catch {
		return null;
	}
}

export const save = async (conversation) => database && outcome(table("readwrite").put(conversation));
export const remove = async (id) => database && outcome(table("readwrite").delete(id));

export const exported = (conversations) => JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);

/** The conversations of a file, with new ids.  Throws an Error that says what is wrong with the file. */
export async function imported(file) {
	if (file.size > LONGEST_FILE) throw new Error("it is larger than 100 MiB");
	let found;
	try {
		found = JSON.parse(await file.text());
	} catch {
		throw new Error("it is not JSON");
	}
	if (found?.format !== FORMAT) throw new Error("it has no conversations of this page");
	if (found.version !== 1) throw new Error("it comes from a newer version of this page");
	return list(found.conversations, rebuilt);
}

const text = (value) => (typeof value === "string" ? value : "");
const list = (value, make) => (Array.isArray(value) ? value.map(make) : []);
const only = (kind, found) => Object.fromEntries(Object.entries(found ?? {}).filter(([, value]) => typeof value === kind));

/** A new conversation with the valid parts of `found`. */
function rebuilt(found) {
	const conversation = newConversation(only("string", found?.settings));
	conversation.title = text(found?.title).slice(0, 200);
	conversation.updated = Number(found?.updated) || 0;
	const left = [[ROOT, ROOT]]; // a node there, and its copy
	const chosen = [];
	const seen = new Set();
	for (const [theirs, ours] of left) {
		for (const id of list(found?.children?.[theirs], String)) {
			if (seen.has(id)) throw new Error("one of its conversations goes in a circle");
			seen.add(id);
			const copy = add(conversation, ours, rebuiltNode(found.nodes?.[id])).id;
			left.push([id, copy]);
			if (found.chosen?.[theirs] === id) chosen.push([ours, copy]);
		}
	}
	Object.assign(conversation.chosen, Object.fromEntries(chosen));
	return conversation;
}

function rebuiltNode(node) {
	const whole = { role: node?.role, text: text(node?.text) };
	if (whole.role === "user") return { ...whole, files: list(node.files, (file) => ({ name: text(file?.name), text: text(file?.text) })) };
	if (whole.role !== "assistant") throw new Error("one of its messages is damaged");
	const calls = list(node.calls, (call) => ({
		id: text(call?.id) || newId(),
		name: text(call?.name),
		arguments: text(call?.arguments),
		result: typeof call?.result === "string" ? call.result : null,
	}));
	const problem = node.problem && { text: text(node.problem.text), status: Number(node.problem.status) };
	return { ...whole, reasoning: text(node.reasoning), finish: text(node.finish), calls, problem, figures: only("number", node.figures) };
}
